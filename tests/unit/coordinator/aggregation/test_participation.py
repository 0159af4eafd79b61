"""Participation factor: a balance between clients that answer often and seldom."""

from __future__ import annotations

from coordinator.aggregation.participation import (
    effective_participation,
    participation_factor,
    relative_steps,
)
from coordinator.core.state import ClientState


def test_a_client_of_average_participation_is_not_scaled() -> None:
    assert participation_factor(3, 3) == 1


def test_the_factor_is_the_inverse_of_participation_between_a_half_and_two() -> None:
    assert participation_factor(4, 3) == 0.75
    assert participation_factor(100, 3) == 0.5
    assert participation_factor(1, 30) == 2


def test_an_update_of_the_buffer_counts_half_and_every_client_starts_at_one() -> None:
    clients = {"a": ClientState(participation=3), "idle": ClientState(issued=1)}
    own, mean = effective_participation(clients, {"a": 2, "new": 1}, 1, 3)
    assert own == {"a": 5.0, "new": 1.5}
    assert mean == 3.25


def test_the_mean_includes_clients_that_are_not_in_the_buffer() -> None:
    clients = {"a": ClientState(participation=3), "b": ClientState(participation=5)}
    assert effective_participation(clients, {"a": 2}, 2, 8) == ({"a": 5.0}, (5 + 6) / 2)


def test_steps_are_compared_with_their_weighted_mean() -> None:
    # q̄ = (¼ · 2 + ¾ · 10) / 1 = 8
    assert relative_steps([2, 10], [0.25, 0.75]) == [0.25, 1.25]
    assert relative_steps([2, 10], [0.5, 1.5]) == [0.25, 1.25]
