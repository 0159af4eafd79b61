"""Tests of the slopes that a soak reports."""

from __future__ import annotations

import pytest

from tests.soak.slopes import growth, table


def samples(*values: float) -> list[dict[str, float]]:
    return [{"seconds": 600.0 * i, "memory": value} for i, value in enumerate(values)]


def test_the_slope_is_per_hour_and_leaves_out_the_first_third() -> None:
    start = (500.0, 0.0, 100.0)
    [memory] = growth(samples(*start, *(10.0 + 2 * i for i in range(6))))
    assert memory.per_hour == pytest.approx(12.0)  # 2 in ten minutes
    assert (memory.first, memory.last) == (11.0, 19.0)


def test_a_single_peak_is_no_slope() -> None:
    [memory] = growth(samples(7, 7, 7, 7, 7, 900, 7, 7, 7))
    assert memory.per_hour == 0
    assert "| memory | 7.0 | 7.0 | +0.00" in table([memory])


def test_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="8 samples"):
        growth(samples(*range(8)))
