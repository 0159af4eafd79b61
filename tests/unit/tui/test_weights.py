"""Weights by client and version, and the histogram of staleness."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.support.tui.builders import update, version
from tui.data import weights


def test_a_clients_updates_in_one_version_add_up() -> None:
    first = version(1, update("a", weight=0.2), update("a", weight=0.3), update("b"))
    versions = [version(0), first, version(2, update("b", weight=1.0))]
    assert weights.weights_by_client(versions) == {"a": {1: 0.5}, "b": {1: 0.5, 2: 1.0}}


def test_a_weight_is_a_digit_of_the_largest() -> None:
    digits = [weights.weight_digit(w, 0.9) for w in (None, 0.0, 0.1, 0.5, 0.9)]
    assert digits == [" ", "0", "1", "5", "9"]
    assert weights.weight_digit(0.0, 0.0) == "0"


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_weight_digit_is_one_character(one: float, other: float) -> None:
    assert len(weights.weight_digit(min(one, other), max(one, other))) == 1


def test_names_sort_by_their_numbers() -> None:
    names = ["client_10", "client_9", "a-2-b", "a-10-b", "7"]
    expected = ["a-2-b", "a-10-b", "client_9", "client_10", "7"]
    assert sorted(names, key=weights.natural_key) == expected


@given(st.lists(st.text(max_size=8)))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=weights.natural_key)) == sorted(names)


def test_staleness_is_counted_without_gaps() -> None:
    updates = [update(staleness=age) for age in (0, 3, 3)]
    assert weights.count_staleness([version(1, *updates)]) == {0: 1, 1: 0, 2: 0, 3: 2}
    assert weights.count_staleness([version(0)]) == {}


def test_the_last_bin_takes_the_rest() -> None:
    assert weights.histogram_bins({0: 5, 1: 4}, 3) == [("0", 5), ("1", 4)]
    four = {0: 5, 1: 4, 2: 3, 3: 2}
    assert weights.histogram_bins(four, 3) == [("0", 5), ("1", 4), ("2+", 5)]
    assert weights.histogram_bins({0: 5, 1: 4}, 1) == [("0+", 9)]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 20))
def test_bins_lose_no_update(ages: list[int], most: int) -> None:
    updates = [update(staleness=age) for age in ages]
    bins = weights.histogram_bins(weights.count_staleness([version(1, *updates)]), most)
    assert len(bins) <= most and sum(count for _, count in bins) == len(ages)
