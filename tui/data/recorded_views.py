"""Views of a recorded run at any time, as the coordinator would have published them.

The journal does not keep all that is published: there are no queues, and workers are known by
their updates only (who trained, for how long, how fast).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

from pydantic import ValidationError

from common.errors import RunError
from common.evaluation.contributions import contribution_rows
from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.protocol.heartbeat import Heartbeat
from common.protocol.naming import LOCAL_SITE
from common.protocol.wire import explain
from common.run_directory import samples
from common.run_directory.recorded_run import RecordedRun
from common.run_directory.records import AcceptedUpdate, AttemptRecord
from common.store.view import (
    MANY_EVENTS,
    ClientRow,
    FederationView,
    RunInfo,
    RunStatus,
    ScoreCost,
)


class TimedRecord(Protocol):
    """Record of something that happened `at` a time, in seconds since the epoch."""

    @property
    def at(self) -> float: ...


T = TypeVar("T", bound=TimedRecord)


def count_until(records: Sequence[TimedRecord], at: float) -> int:
    """Return how many of the records, which are in order of time, are not later than `at`."""
    return bisect_right(records, at, key=lambda record: record.at)


def records_until(records: Sequence[T], at: float) -> Sequence[T]:
    return records[: count_until(records, at)]


def view_at(run: RecordedRun, at: float) -> FederationView:
    """Return the view that the coordinator would have published at a time.

    Raises:
        RunError: The journal holds what no coordinator publishes.
    """
    try:
        return _view_at(run, at)
    except ValidationError as error:
        raise RunError(
            f"the journal in {run.directory} is damaged: {explain(error)}",
            "restore the run from a backup",
        ) from None


def _view_at(run: RecordedRun, at: float) -> FederationView:
    versions = tuple(records_until(run.versions, at)) or run.versions[:1]
    open_tasks = _open_tasks(run, at)
    return FederationView(
        info=_info(run, at, versions[-1].version, len(open_tasks)),
        clients=_clients(run, at, open_tasks),
        workers=workers_at(run, updates_by_worker(run), at),
        queues=(),
        versions=versions,
        events=tuple(records_until(run.events, at)[-MANY_EVENTS:]),
        samples=samples.select_shown(records_until(run.samples, at)),
        evaluations=_evaluations(run, at),
        contributions=contribution_rows(
            versions,
            [phase.objective for phase in run.config.phase],
            run.config.aggregation.contribution_source,
        ),
        evaluators=tuple(records_until(run.evaluators, at)),
    )


def _evaluations(run: RecordedRun, at: float) -> tuple[EvaluationRow, ...]:
    rounds = [
        each.model_copy(update={"closed_at": None}) if (each.closed_at or at) > at else each
        for each in records_until(run.rounds, at)
    ]
    kinds = [phase.kind for phase in run.config.phase]
    return evaluation_rows(records_until(run.evaluations, at), rounds, kinds)


def updates_by_worker(run: RecordedRun) -> dict[str, list[AcceptedUpdate]]:
    """Return the accepted updates of each worker in order, by the worker's id."""
    updates: dict[str, list[AcceptedUpdate]] = {}
    for each in run.updates:
        updates.setdefault(each.worker_id, []).append(each)
    return {name: updates[name] for name in sorted(updates)}


def workers_at(
    run: RecordedRun, updates: Mapping[str, Sequence[AcceptedUpdate]], at: float
) -> tuple[Heartbeat, ...]:
    """Return a heartbeat of each worker whose updates were accepted, from its first task on.

    A worker trains for as long as its update says, until the update is accepted. `updates` is the
    result of `updates_by_worker`.
    """
    heartbeats = (_heartbeat(run, at, name, own) for name, own in updates.items())
    return tuple(each for each in heartbeats if each is not None)


def _heartbeat(
    run: RecordedRun, at: float, name: str, updates: Sequence[AcceptedUpdate]
) -> Heartbeat | None:
    if at < _training_start(updates[0]):
        return None
    done = count_until(updates, at)
    last = updates[done - 1] if done else None
    following = updates[done] if done < len(updates) else None
    client = run.clients.get(updates[0].client_id)
    waiting = Heartbeat(
        worker_id=name,
        site=client.site if client else LOCAL_SITE,
        state="waiting",
        clients=tuple(dict.fromkeys(each.client_id for each in updates)),
        last_loss=last.stats.avg_loss if last else None,
        device="recorded",
        software=run.software,
        sent_at=at,
    )
    if following is None or at < _training_start(following):
        return waiting
    seconds = max(following.stats.train_seconds, 1e-3)
    return waiting.model_copy(
        update={
            "state": "training",
            "task_id": following.task_id,
            "client_id": following.client_id,
            "base_version": following.base_version,
            "progress": min(1.0, (at - _training_start(following)) / seconds),
            "tokens_per_s": following.stats.num_tokens / seconds,
        }
    )


def _training_start(update: AcceptedUpdate) -> float:
    return update.at - update.stats.train_seconds


def _open_tasks(run: RecordedRun, at: float) -> dict[str, AttemptRecord]:
    """Return the newest attempt of each task without a receipt, by client."""
    closed = {each.task_id for each in records_until(run.receipts, at)}
    attempts = records_until(run.attempts, at)
    return {each.client_id: each for each in attempts if each.task_id not in closed}


def _clients(run: RecordedRun, at: float, tasks: dict[str, AttemptRecord]) -> tuple[ClientRow, ...]:
    versions = records_until(run.versions, at) or run.versions[:1]
    newest = versions[-1]
    kind = run.config.phase[_phase_of(_phase_ends(run), newest.version)].kind
    issued = Counter(e.client_id for e in records_until(run.attempts, at) if e.attempt == 1)
    applied = Counter(u.client_id for version in versions for u in version.updates)
    losses = {each.client_id: each.stats.avg_loss for each in records_until(run.updates, at)}
    weights = {update.client_id: update.weight for update in newest.updates}
    quarantined = _quarantined(run, at)
    rows = []
    for name, client in run.clients.items():
        task = tasks.get(name)
        row = ClientRow(
            client_id=name,
            site=client.site,
            rows=client.rows.get(kind, 0),
            issued=issued[name],
            participation=applied[name],
            task_id=task.task_id if task else None,
            base_version=task.base_version if task else None,
            staleness=max(0, newest.version - task.base_version) if task else None,
            last_loss=losses.get(name),
            weight=weights.get(name),
            quarantined=name in quarantined,
        )
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: row.client_id))


def _quarantined(run: RecordedRun, at: float) -> set[str]:
    events = records_until(run.events, at)
    return {str(event.refs.get("client")) for event in events if event.kind == "quarantined"}


def _info(run: RecordedRun, at: float, version: int, open_tasks: int) -> RunInfo:
    config, receipts = run.config, records_until(run.receipts, at)
    ends = _phase_ends(run)
    accepted = sum(1 for each in receipts if each.accepted)
    applied = sum(len(each.updates) for each in records_until(run.versions, at))
    status, detail = _status(run, at)
    scores = records_until(run.scores, at)
    return RunInfo(
        run=run.run_id,
        name=config.run.name,
        status=status,
        detail=detail,
        version=version,
        total_versions=ends[-1],
        phase=_phase_of(ends, version),
        phases=tuple(phase.objective for phase in config.phase),
        phase_ends=ends,
        clients=len(run.clients),
        buffered=max(0, accepted - applied),
        buffer_size=config.schedule.buffer,
        open_tasks=open_tasks,
        accepted=accepted,
        rejected=len(receipts) - accepted,
        started_at=run.started_at,
        updated_at=at,
        max_staleness=config.schedule.max_staleness,
        software=run.software,
        contribution_source=config.aggregation.contribution_source,
        scores=ScoreCost(
            updates=len(scores),
            seconds=sum(each.seconds for each in scores),
            nbytes=sum(each.nbytes for each in scores),
        ),
        privacy=run.privacy(version),
    )


def _status(run: RecordedRun, at: float) -> tuple[RunStatus, str]:
    # Samples of the last version come after the end.
    events = [event for event in records_until(run.events, at) if event.kind != "samples"]
    last = events[-1] if events else None
    if last is not None and last.kind == "finished":
        return "finished", last.text
    if last is not None and last.kind == "stopped":
        return "stopped", last.text
    if at < run.ended_at:
        return "running", "as recorded"
    return "stopped", "the recording ends here"


def _phase_ends(run: RecordedRun) -> tuple[int, ...]:
    return tuple(accumulate(phase.versions for phase in run.config.phase))


def _phase_of(ends: Sequence[int], version: int) -> int:
    """Return the phase of tasks that train from a version; the last phase after its end."""
    return next((phase for phase, end in enumerate(ends) if version < end), len(ends) - 1)
