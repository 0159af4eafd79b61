"""Cache of last updates, on numbers that are easy to check."""

from __future__ import annotations

import numpy as np

from common.protocol.tensors import Tensors
from coordinator.aggregation.robust.similarity import TensorReader
from coordinator.aggregation.update_cache import calibrated_mean, updated_total


def tensors(value: float) -> Tensors:
    return {"B": np.array([value], np.float32)}


def read(*values: float) -> list[TensorReader]:
    return [lambda value=value: iter(tensors(value).items()) for value in values]  # type: ignore[misc]


def test_the_first_step_is_the_mean_of_the_buffer() -> None:
    assert calibrated_mean(tensors(0), 0, read(2, 4), []) == tensors(3)


def test_a_step_is_the_cached_mean_and_what_has_changed_since() -> None:
    # h = 2, 4, 9 of three clients; the first two answer with 4 and 8: 5 + (2 + 4)/2.
    assert calibrated_mean(tensors(15), 3, read(4, 8), read(2, 4)) == tensors(8)


def test_clients_that_repeat_themselves_leave_the_step_at_the_mean_of_all() -> None:
    assert calibrated_mean(tensors(15), 3, read(2), read(2)) == tensors(5)


def test_a_client_without_a_cached_update_counts_as_the_mean() -> None:
    assert calibrated_mean(tensors(15), 3, read(7, 9), []) == tensors(8)  # as if cached = 5, 5
    # 5 + ((7 − 2) + (9 − 5))/2
    assert calibrated_mean(tensors(15), 3, read(7, 9), read(2)) == tensors(9.5)


def test_the_sum_follows_the_updates_that_come_and_go() -> None:
    assert updated_total(tensors(15), read(7, 9), read(2)) == tensors(29)
