"""Inner products and distances of updates, and the rules that choose updates by them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coordinator.aggregation.robust.cosine_filter import (
    agreeing_updates,
    cosines_with_other_directions,
)
from coordinator.aggregation.robust.krum import hostile_count, krum_choice, krum_scores
from coordinator.aggregation.robust.similarity import (
    Matrix,
    TensorReader,
    inner_products,
    squared_distances,
)


def readers(*updates: list[float]) -> list[TensorReader]:
    """Return updates of two tensors: the first number, and the others."""

    def reader(values: list[float]) -> TensorReader:
        first, rest = np.array(values[:1], np.float32), np.array(values[1:], np.float32)
        return lambda: iter([("A", first), ("B", rest)])

    return [reader(values) for values in updates]


def products(*updates: list[float]) -> Matrix:
    return inner_products(readers(*updates))


def test_inner_products_and_distances_are_over_all_tensors() -> None:
    found = products([1, 2, 2], [3, 0, 4])
    assert found.tolist() == [[9, 11], [11, 25]]
    assert squared_distances(found).tolist() == [[0, 12], [12, 0]]


def test_equal_updates_have_no_distance() -> None:
    update = [0.1, 0.7, -0.3]
    assert squared_distances(products(update, update)).tolist() == [[0, 0], [0, 0]]


# Krum

LINE = squared_distances(products([0, 0], [1, 0], [3, 0], [6, 0], [100, 0]))


def test_the_score_is_the_sum_over_the_nearest_neighbours_without_itself() -> None:
    # n = 5, f = 1: two neighbours. Of 3: 1 and 6 or 0, at 4 + 9.
    assert krum_scores(LINE, 1) == [1 + 9, 1 + 4, 4 + 9, 9 + 25, 94**2 + 97**2]


def test_krum_chooses_one_update_and_multi_krum_all_but_the_hostile_ones() -> None:
    assert krum_choice(LINE, 1, several=False) == [1]
    assert krum_choice(LINE, 1, several=True) == [0, 1, 2, 3]


def test_of_equal_updates_the_earlier_is_chosen() -> None:
    same = squared_distances(products([5, 5], [1, 1], [1, 1], [1, 1]))
    assert krum_choice(same, 0, several=False) == [1]


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_flush_of_a_few_updates_has_a_choice(updates: int) -> None:
    distances = LINE[:updates, :updates]
    assert krum_choice(distances, 0, several=True) == list(range(updates))
    assert len(krum_choice(distances, 0, several=False)) == 1


def test_the_number_of_hostile_updates_is_rounded_down() -> None:
    assert [hostile_count(0.3, n) for n in (3, 10, 11)] == [0, 3, 3]


# cosine filter


def test_directions_are_compared_with_those_of_other_clients() -> None:
    found = cosines_with_other_directions(products([2, 0], [0, 9], [-5, 0]), ["a", "b", "c"])
    # of a: (b + c)/√2 = (−1, 1)/√2; of b: a + c = 0
    assert found[0] == pytest.approx(-1 / math.sqrt(2))
    assert math.isnan(found[1])


def test_an_update_against_the_others_is_left_out() -> None:
    found = products([1, 0.1], [3, -0.2], [1, 0.3], [-50, 0])
    assert agreeing_updates(found, list("abcd"), 0.0) == [0, 1, 2]


def test_updates_of_the_same_client_do_not_vouch_for_each_other() -> None:
    found = products([-9, 0], [-9, 0], [1, 0], [1, 0.1], [1, -0.1])
    assert agreeing_updates(found, ["x", "x", "a", "b", "c"], 0.0) == [2, 3, 4]


def test_updates_of_one_client_alone_are_all_kept() -> None:
    assert agreeing_updates(products([1, 0], [-1, 0]), ["a", "a"], 0.0) == [0, 1]


def test_a_zero_update_is_left_out() -> None:
    assert agreeing_updates(products([0, 0], [1, 0], [1, 0]), list("abc"), -1.0) == [1, 2]
