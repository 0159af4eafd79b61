"""The state, rebuilt from the journal: what a coordinator starts with after a stop or a crash.

Leases, live sites and the store's health are not in the journal: they are facts of the moment.
Every open task is given a fresh lease; if no heartbeat names it meanwhile, it is issued again.
"""

from __future__ import annotations

from types import MappingProxyType

from common.protocol.updates import ContributionStats
from coordinator.core.state import (
    NORM_HISTORY,
    BufferedUpdate,
    ClientState,
    CoordinatorState,
    OpenTask,
    Plan,
)
from coordinator.storage.journal import Journal


def recover(plan: Plan, journal: Journal, now: float, lease_s: float) -> CoordinatorState:
    """The state that the journal's rows describe.

    Args:
        plan: Of the run.
        journal: Of a run that has at least version 0.
        now: Seconds since the epoch.
        lease_s: Lease of the open tasks from now; 0 where their messages are known to be lost.
    """
    versions = journal.versions()
    buffer = _buffer(journal)
    tasks = _tasks(journal, now + lease_s)
    issued = journal.rows("SELECT COUNT(*) FROM task")[0][0]
    version = versions[-1].version
    first = journal.rows("SELECT MIN(at) FROM accepted WHERE version IS NULL")[0][0]
    return CoordinatorState(
        version=version,
        tasks=MappingProxyType(tasks),
        buffer=tuple(buffer),
        clients=MappingProxyType(_clients(journal)),
        joined=MappingProxyType({client.client_id: client for client in journal.joined_clients()}),
        paused=journal.paused(),
        norms=_norms(journal, plan.phase_of(version)),
        issued=issued,
        round_at=_newest_issue(journal),
        buffered_at=first or 0.0,
        round_issued=_round_issued(journal, version),
    )


def _tasks(journal: Journal, lease_until: float) -> dict[str, OpenTask]:
    tasks = {}
    query = "SELECT task_id, client_id, phase, seed FROM task WHERE open ORDER BY rowid"
    for task_id, client_id, phase, seed in journal.rows(query):
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
            issued_at=attempts[-1][1],
            lease_until=lease_until,
        )
    return tasks


def _buffer(journal: Journal) -> list[BufferedUpdate]:
    query = (
        "SELECT task_id, attempt, client_id, worker_id, base_version, stats, clip, nbytes, upload"
        " FROM accepted WHERE version IS NULL ORDER BY seq"
    )
    return [
        BufferedUpdate(task, attempt, client, worker, base, _stats(stats), clip, nbytes, upload)
        for task, attempt, client, worker, base, stats, clip, nbytes, upload in journal.rows(query)
    ]


def _clients(journal: Journal) -> dict[str, ClientState]:
    query = "SELECT client_id, issued, participation, strikes, last FROM client ORDER BY rowid"
    return {
        client: ClientState(issued, participation, _stats(last) if last else None, strikes)
        for client, issued, participation, strikes, last in journal.rows(query)
    }


def _norms(journal: Journal, phase: int) -> tuple[float, ...]:
    query = (
        "SELECT norm * clip FROM accepted JOIN task USING (task_id) WHERE phase = ?"
        " ORDER BY seq DESC LIMIT ?"
    )
    return tuple(norm for (norm,) in reversed(journal.rows(query, phase, NORM_HISTORY)))


def _round_issued(journal: Journal, version: int) -> bool:
    query = "SELECT COUNT(*) FROM attempt WHERE attempt = 1 AND base_version = ?"
    return bool(journal.rows(query, version)[0][0])


def _newest_issue(journal: Journal) -> float:
    return journal.rows("SELECT MAX(issued_at) FROM attempt WHERE attempt = 1")[0][0] or 0.0


def _stats(text: str) -> ContributionStats:
    return ContributionStats.model_validate_json(text)
