"""Recovery: the state after a stop or a crash, rebuilt from the journal.

Leases, live workers, refusals of open tasks, requests for scores and the store's health are not in
the journal, because they are outdated after a restart. Every open task and evaluation gets a fresh
lease, and is issued again unless a heartbeat names it meanwhile; deadlines of evaluations start
again. A time in the future counts as now: the clock was set back since.

The buffer is filled by the machine's own rule, `coordinator/core/state_changes.py: accept_update`.
Versions, tasks and clients are read as they were written. Two rules are restated in SQL: norms
count within a phase (`apply_commit`), and a round is issued once a first attempt starts from its
version (`coordinator/core/schedule.py`). `tests/properties/` compares the result with the state in
memory after every step of federations in which anything happens, in any order.
"""

from __future__ import annotations

import json
from dataclasses import replace

from common.protocol.updates import ContributionStats
from coordinator.core.pace import Pace
from coordinator.core.state import (
    NORM_HISTORY,
    BufferedUpdate,
    ClientState,
    CoordinatorState,
    OpenTask,
    Plan,
)
from coordinator.core.state_changes import accept_update
from coordinator.persistent.ordered_map import OrderedMap
from coordinator.storage.journal import Journal
from coordinator.storage.recovered_evaluations import last_scores, recover_evaluations


def recover(plan: Plan, journal: Journal, now: float, lease_s: float) -> CoordinatorState:
    """Return the state that a journal with at least version 0 describes.

    `lease_s` is the lease of open tasks from `now` on; 0 if their messages are known to be lost.
    """
    version = journal.newest_version().version
    state = CoordinatorState(
        version=version,
        tasks=OrderedMap(_open_tasks(journal, now, now + lease_s)),
        joined=OrderedMap((client.client_id, client) for client in journal.joined_clients()),
        paused=journal.paused(),
        norms=_norms_before_the_buffer(journal, plan.phase_of(version)),
        issued=journal.rows("SELECT COUNT(*) FROM task")[0][0],
        round_at=min(_newest_issue(journal), now),
        round_issued=_round_issued(journal, version),
        min_clients=journal.min_clients(),
    )
    for update, norm, accepted_at in _buffered_updates(journal):
        state = accept_update(state, update, norm, min(accepted_at, now))
    state = replace(state, clients=OrderedMap(_clients(journal, plan.phase_of(version))))
    return recover_evaluations(plan, journal, state, now, now + lease_s)


def _open_tasks(journal: Journal, now: float, lease_until: float) -> dict[str, OpenTask]:
    tasks = {}
    query = (
        "SELECT task_id, client_id, phase, seed, COALESCE(steps, 0) FROM task"
        " LEFT JOIN task_steps USING (task_id) WHERE open ORDER BY task.rowid"
    )
    for task_id, client_id, phase, seed, steps in journal.rows(query):
        attempts = journal.rows(
            "SELECT base_version, issued_at FROM attempt WHERE task_id = ? ORDER BY attempt",
            task_id,
        )
        tasks[task_id] = OpenTask(
            task_id=task_id,
            client_id=client_id,
            phase=phase,
            seed=seed,
            bases=tuple(base for base, _ in attempts),
            issued_at=min(attempts[-1][1], now),
            lease_until=lease_until,
            steps=steps,
        )
    return tasks


def _buffered_updates(journal: Journal) -> list[tuple[BufferedUpdate, float, float]]:
    """Return the updates of the buffer, each with its norm and time of acceptance."""
    query = (
        "SELECT task_id, attempt, client_id, worker_id, base_version, stats, clip, nbytes, upload,"
        " norm, at FROM accepted WHERE version IS NULL ORDER BY seq"
    )
    updates = []
    for task, attempt, client, worker, base, stats, clip, nbytes, upload, norm, at in journal.rows(
        query
    ):
        parsed = _parse_stats(stats)
        update = BufferedUpdate(task, attempt, client, worker, base, parsed, clip, nbytes, upload)
        updates.append((update, norm, at))
    return updates


def _clients(journal: Journal, phase: int) -> dict[str, ClientState]:
    query = (
        "SELECT client_id, issued, participation, strikes, last, paces FROM client"
        " LEFT JOIN client_pace USING (client_id) ORDER BY client.rowid"
    )
    scores = last_scores(journal, phase)
    return {
        client: ClientState(
            issued=issued,
            participation=participation,
            last_stats=_parse_stats(last) if last else None,
            last_score=scores.get(client),
            strikes=strikes,
            paces=tuple(Pace(*pace) for pace in json.loads(paces or "[]")),
        )
        for client, issued, participation, strikes, last, paces in journal.rows(query)
    }


def _norms_before_the_buffer(journal: Journal, phase: int) -> tuple[float, ...]:
    query = (
        "SELECT norm * clip FROM accepted JOIN task USING (task_id)"
        " WHERE phase = ? AND version IS NOT NULL ORDER BY seq DESC LIMIT ?"
    )
    return tuple(norm for (norm,) in reversed(journal.rows(query, phase, NORM_HISTORY)))


def _round_issued(journal: Journal, version: int) -> bool:
    query = "SELECT COUNT(*) FROM attempt WHERE attempt = 1 AND base_version = ?"
    return bool(journal.rows(query, version)[0][0])


def _newest_issue(journal: Journal) -> float:
    # By order, not by time: the clock may have been set back.
    query = "SELECT issued_at FROM attempt WHERE attempt = 1 ORDER BY rowid DESC LIMIT 1"
    return next((issued_at for (issued_at,) in journal.rows(query)), 0.0)


def _parse_stats(text: str) -> ContributionStats:
    return ContributionStats.model_validate_json(text)
