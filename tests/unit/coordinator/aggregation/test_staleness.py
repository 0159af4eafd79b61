"""The discount of old updates and the balance of fast and slow clients."""

from __future__ import annotations

import pytest

from coordinator.aggregation.staleness import participation, staleness_factor


def test_a_fresh_update_counts_whole() -> None:
    assert staleness_factor(0, 0.5) == 1


def test_three_versions_halve_an_update_at_the_usual_exponent() -> None:
    assert staleness_factor(3, 0.5) == 0.5
    assert staleness_factor(8, 0.5) == pytest.approx(1 / 3)


def test_older_never_counts_more() -> None:
    factors = [staleness_factor(staleness, 0.5) for staleness in range(100)]
    assert factors == sorted(factors, reverse=True) and factors[-1] > 0


def test_exponent_zero_switches_the_discount_off() -> None:
    assert staleness_factor(20, 0) == 1


def test_a_client_of_average_participation_counts_whole() -> None:
    assert participation(3, 3) == 1


def test_the_balance_is_the_inverse_of_participation_between_a_half_and_two() -> None:
    assert participation(4, 3) == 0.75
    assert participation(100, 3) == 0.5
    assert participation(1, 30) == 2
