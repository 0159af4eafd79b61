"""Changes of the state by accepting an update and by committing a version.

The machine applies them to events; `coordinator/storage/recovery.py` applies the first one to rows
of the journal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType

from coordinator.core.events import CommitVersion
from coordinator.core.pace import PACES, Pace
from coordinator.core.state import NORM_HISTORY, BufferedUpdate, ClientState, CoordinatorState, Plan
from coordinator.persistent.ordered_map import OrderedMap


def accept_update(
    state: CoordinatorState,
    update: BufferedUpdate,
    norm: float,
    now: float,
    pace: Pace | None = None,
) -> CoordinatorState:
    """Return the state after an update was accepted.

    Args:
        state: The state before.
        update: The update.
        norm: Its norm before clipping.
        now: Time of acceptance.
        pace: What it took, if that counts.
    """
    client = with_pace(state.client(update.client_id), pace)
    client = replace(client, last_stats=update.stats, strikes=0)
    after = state.without_task(update.task_id).with_client(update.client_id, client)
    return after.changed(
        buffer=(*state.buffer, update),
        buffered_at=state.buffered_at if state.buffer else now,
        norms=(*state.norms, norm * update.clip)[-NORM_HISTORY:],
    )


def with_pace(client: ClientState, pace: Pace | None) -> ClientState:
    """Return a client with another measured update, of which only the last few count."""
    return client if pace is None else replace(client, paces=(*client.paces, pace)[-PACES:])


def apply_commit(plan: Plan, state: CoordinatorState, commit: CommitVersion) -> CoordinatorState:
    """Return the state after a commit.

    Losses, scores, norms and paces are forgotten at the end of a phase, because another objective
    has another scale.
    """
    applied = Counter(part.update.client_id for part in commit.parts)
    clients = state.clients.update(
        (name, _with_participation(state.client(name), updates))
        for name, updates in applied.items()
    )
    norms = state.norms
    if commit.version == plan.phase_end(commit.phase):
        norms, clients = (), OrderedMap((name, _forget(each)) for name, each in clients.items())
    return replace(
        state,
        version=commit.version,
        clients=clients,
        norms=norms,
        buffer=(),
        round_issued=False,
        scores=MappingProxyType({}),
        scoring=frozenset(),
        unscored=frozenset(),
        answers=MappingProxyType({}),
        full_at=0.0,
    )


def _with_participation(client: ClientState, updates: int) -> ClientState:
    return replace(client, participation=client.participation + updates)


def _forget(client: ClientState) -> ClientState:
    return replace(client, last_stats=None, last_score=None, paces=())
