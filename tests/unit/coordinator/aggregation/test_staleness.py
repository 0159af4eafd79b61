"""Staleness factor: the discount of updates that were trained from older versions."""

from __future__ import annotations

import pytest

from coordinator.aggregation.staleness import staleness_factor


def test_a_fresh_update_is_not_discounted() -> None:
    assert staleness_factor(0, 0.5) == 1


def test_three_versions_halve_an_update_at_the_default_exponent() -> None:
    assert staleness_factor(3, 0.5) == 0.5
    assert staleness_factor(8, 0.5) == pytest.approx(1 / 3)


def test_an_older_update_never_counts_more() -> None:
    factors = [staleness_factor(staleness, 0.5) for staleness in range(100)]
    assert factors == sorted(factors, reverse=True) and factors[-1] > 0


def test_exponent_zero_switches_the_discount_off() -> None:
    assert staleness_factor(20, 0) == 1
