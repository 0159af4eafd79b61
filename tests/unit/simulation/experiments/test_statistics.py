"""Means with intervals over seeds."""

import pytest

from simulation.experiments.statistics import Estimate, estimate, estimate_ratio, scaled


def test_the_interval_of_a_mean_is_students() -> None:
    # s = 1, n = 3: t(0.975, 2) = 4.3027, so the half width is 4.3027 / √3
    found = estimate([1.0, 2.0, 3.0])

    assert found is not None and found.low is not None and found.high is not None
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert estimate([2.0]) == Estimate(2.0)
    assert estimate([]) is None


def test_the_mean_of_ratios_is_geometric() -> None:
    found = estimate_ratio([2.0, 8.0])

    assert found is not None
    assert found.mean == pytest.approx(4.0)


def test_an_estimate_is_shown_with_its_interval() -> None:
    assert Estimate(0.5, 0.25, 0.75).format(2) == "0.50 [0.25, 0.75]"
    assert scaled(Estimate(0.5), 100).format(0) == "50"
