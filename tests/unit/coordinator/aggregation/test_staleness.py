"""Staleness factor: the discount of updates that were trained from older versions."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from common.config.config import StalenessName
from coordinator.aggregation.staleness import staleness_factor

NAMES = get_args(StalenessName)


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_update_is_not_discounted(name: StalenessName) -> None:
    assert staleness_factor(0, 0.5, name, 4) == 1


def test_three_versions_halve_an_update_at_the_default_exponent() -> None:
    assert staleness_factor(3, 0.5) == 0.5
    assert staleness_factor(8, 0.5) == pytest.approx(1 / 3)


def test_a_hinge_discounts_beyond_its_threshold_only() -> None:
    # FedAsync's own a = 10 and b = 4: 1 / (10 · 1 + 1) and 1 / (10 · 6 + 1).
    found = [staleness_factor(tau, 10, "hinge", 4) for tau in (3, 4, 5, 10)]
    assert found == [1, 1, pytest.approx(1 / 11), pytest.approx(1 / 61)]


def test_an_exponential_discount_halves_by_a_constant_number_of_versions() -> None:
    found = [staleness_factor(tau, math.log(2) / 2, "exponential") for tau in (2, 4, 6)]
    assert found == pytest.approx([1 / 2, 1 / 4, 1 / 8])


@pytest.mark.parametrize("name", NAMES)
def test_an_older_update_never_counts_more(name: StalenessName) -> None:
    # A public implementation has the exponent's sign wrong, so that old updates count more.
    factors = [staleness_factor(staleness, 0.5, name, 4) for staleness in range(100)]
    assert factors == sorted(factors, reverse=True) and 0 < factors[-1] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_factor_does_not_depend_on_what_was_asked_before(name: StalenessName) -> None:
    # A public implementation multiplies its rate by s in place, so that the rate decays for ever.
    first = staleness_factor(5, 0.5, name, 4)
    for _ in range(10):
        staleness_factor(20, 0.5, name, 4)
    assert staleness_factor(5, 0.5, name, 4) == first


@pytest.mark.parametrize("name", NAMES)
def test_exponent_zero_switches_the_discount_off(name: StalenessName) -> None:
    assert staleness_factor(20, 0, name, 4) == 1
