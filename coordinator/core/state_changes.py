"""Changes of the state by accepting an update and by committing a version.

The machine applies them to events; `coordinator/storage/recovery.py` applies the first one to rows
of the journal.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from coordinator.core.events import CommitVersion
from coordinator.core.state import NORM_HISTORY, BufferedUpdate, CoordinatorState, Plan


def accept_update(
    state: CoordinatorState, update: BufferedUpdate, norm: float, now: float
) -> CoordinatorState:
    """Return the state after an update was accepted; `norm` is its norm before clipping."""
    client = replace(state.client(update.client_id), last_stats=update.stats, strikes=0)
    return replace(
        state.without_task(update.task_id).with_client(update.client_id, client),
        buffer=(*state.buffer, update),
        buffered_at=state.buffered_at if state.buffer else now,
        norms=(*state.norms, norm * update.clip)[-NORM_HISTORY:],
    )


def apply_commit(plan: Plan, state: CoordinatorState, commit: CommitVersion) -> CoordinatorState:
    """Return the state after a commit.

    Losses, scores and norms are forgotten at the end of a phase, because another objective has
    another scale.
    """
    for part in commit.parts:
        client = state.client(part.update.client_id)
        client = replace(client, participation=client.participation + 1)
        state = state.with_client(part.update.client_id, client)
    if commit.version == plan.phase_end(commit.phase):
        clients = {
            name: replace(client, last_stats=None, last_score=None)
            for name, client in state.clients.items()
        }
        state = replace(state, norms=(), clients=MappingProxyType(clients))
    return replace(
        state,
        version=commit.version,
        buffer=(),
        round_issued=False,
        scores=MappingProxyType({}),
        scoring=frozenset(),
        unscored=frozenset(),
        answers=MappingProxyType({}),
        full_at=0.0,
    )
