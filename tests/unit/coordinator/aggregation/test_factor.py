"""The next version, on numbers small enough for a head."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from common.protocol.tensors import Tensors
from coordinator.aggregation.factor import aggregate_factors
from coordinator.core.events import CommitVersion
from coordinator.core.schedule import parts
from coordinator.core.state import BufferedUpdate, CoordinatorState
from tests.support.virtual_federation import plan, stats


def theta(a: float, b: float) -> Tensors:
    return {"A": np.array([a], np.float32), "B": np.array([[b]], np.float32)}


def buffer(version: int, *bases: int) -> CoordinatorState:
    """A buffer with an update of each of some clients, equal but for their bases."""
    updates = tuple(
        BufferedUpdate(f"t{i}", 1, f"c{i}", "w", base, stats(), 1.0, 1, f"u{i}")
        for i, base in enumerate(bases)
    )
    return CoordinatorState(version=version, buffer=updates)


def test_deltas_are_added_with_their_coefficients_to_each_factor() -> None:
    found = aggregate_factors(theta(1, 10), [(0.5, theta(2, 4)), (0.25, theta(4, -8))])
    assert found == theta(1 + 1 + 1, 10 + 2 - 2)


def test_an_empty_buffer_changes_nothing_and_the_current_version_stays_untouched() -> None:
    current = theta(1, 10)
    assert aggregate_factors(current, []) == current
    aggregate_factors(current, [(1.0, theta(5, 5))])
    assert current == theta(1, 10)


def test_deltas_are_consumed_one_at_a_time() -> None:
    alive: list[Tensors] = []

    def stream() -> Iterator[tuple[float, Tensors]]:
        current = theta(0, 0)
        result = theta(1, 1)
        for _ in range(3):
            alive.append(current)
            yield 1.0, result
            # Added before the next is asked for: what follows must not change the sum.
            result["A"][:] = 1
            result["B"][:] = 1

    assert aggregate_factors(theta(0, 0), stream()) == theta(3, 3)
    assert len(alive) == 3


def coefficients(state: CoordinatorState) -> list[float]:
    return [part.coefficient for part in parts(plan(), state)]


def test_a_fresh_buffer_takes_a_whole_step() -> None:
    assert coefficients(buffer(3, 3, 3)) == pytest.approx([0.5, 0.5])


def test_an_all_stale_buffer_takes_a_smaller_step() -> None:
    # s(3) = 1/2 and s is not renormalised: the coefficients sum to a half.
    assert coefficients(buffer(3, 0, 0)) == pytest.approx([0.25, 0.25])


def test_clip_and_server_learning_rate_scale_the_step() -> None:
    state = buffer(0, 0, 0)
    clipped = state.buffer[0].__class__(**{**vars(state.buffer[0]), "clip": 0.1})
    of = plan()
    of = plan(aggregation=of.aggregation.model_copy(update={"server_lr": 2.0}))
    found = parts(of, CoordinatorState(buffer=(clipped, state.buffer[1])))
    assert [part.coefficient for part in found] == pytest.approx([0.1, 1.0])


def test_a_commit_names_every_update_with_the_factors_that_made_it() -> None:
    found = parts(plan(), buffer(3, 3, 0))
    commit = CommitVersion(4, 0, found)
    assert [part.staleness for part in commit.parts] == [0, 3]
    for part in commit.parts:
        product = part.weight * part.staleness_factor * part.participation_factor
        assert part.coefficient == pytest.approx(product * part.update.clip)
