"""Plays a recorded run: views as from `tui/data/reader.py`, from a run directory and a clock of its own.

No server is needed. What the coordinator shows and the journal does not keep is left out: queues
are empty. Workers are shown by what their updates say: who trained, for how long, how fast.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, TypeVar

from common.protocol.heartbeat import Heartbeat
from common.protocol.naming import LOCAL_SITE
from common.run_directory import samples
from common.run_directory.recorded_run import RecordedRun
from common.run_directory.records import AcceptedUpdate, AttemptRecord
from common.store.view import MANY_EVENTS, ClientRow, FederationView, RunInfo, RunStatus
from tui.data.reader import Snapshot

SPEED = 60.0  # seconds of the run per second
SLOWEST, FASTEST = 0.125, 2.0**16


class TimedRecord(Protocol):
    """Something that happened."""

    @property
    def at(self) -> float:
        """When, in seconds since the epoch."""


T = TypeVar("T", bound=TimedRecord)


@dataclass(frozen=True)
class PlaybackClock:
    """Virtual time that runs `speed` times as fast as the monotonic clock, until its end.

    Attributes:
        since: On the monotonic clock.
        at: The virtual time then.
        end: The last virtual time.
        speed: Virtual seconds per second.
        held: Stands still.
    """

    since: float
    at: float
    end: float
    speed: float
    held: bool = False

    def time(self, now: float) -> float:
        """The virtual time at a moment of the monotonic clock."""
        passed = 0.0 if self.held else max(0.0, now - self.since) * self.speed
        return min(self.end, self.at + passed)

    def changed(self, now: float, speed: float, held: bool) -> PlaybackClock:
        """A clock that goes on from here in another way."""
        speed = max(SLOWEST, min(FASTEST, speed))
        return replace(self, since=now, at=self.time(now), speed=speed, held=held)


class Replay:
    """Takes the place of a `Feed`."""

    def __init__(
        self,
        recording: RecordedRun,
        speed: float = SPEED,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stands at the beginning until `start`.

        Args:
            recording: What to play.
            speed: Seconds of the run per second.
            monotonic: The clock of this process.
        """
        self.name = recording.config.run.name
        self._recording, self._monotonic = recording, monotonic
        self._clock = PlaybackClock(
            monotonic(), recording.started_at, recording.ended_at, speed, held=True
        )
        self._known = _Known(recording)

    def start(self) -> None:
        """Let time run."""
        self._change(self._clock.speed, held=False)

    def stop(self) -> None:
        """Time stands still."""
        self._change(self._clock.speed, held=True)

    def faster(self) -> None:
        """Twice as fast."""
        self._change(self._clock.speed * 2, self._clock.held)

    def slower(self) -> None:
        """Half as fast."""
        self._change(self._clock.speed / 2, self._clock.held)

    def hold(self) -> None:
        """Stand still, or go on."""
        self._change(self._clock.speed, not self._clock.held)

    def latest(self) -> Snapshot:
        """The run as it was at the virtual time."""
        now = self._monotonic()
        at = self._clock.time(now)
        shown = time.strftime("%H:%M:%S", time.localtime(at))
        state = ", held" if self._clock.held else ""
        state = ", at the end" if at >= self._clock.end else state
        detail = f"replay {shown} ×{self._clock.speed:g}{state}"
        return Snapshot(
            "replay", self._known.view(at), read_at=now, changed_at=now, detail=detail, wall_time=at
        )

    def _change(self, speed: float, held: bool) -> None:
        self._clock = self._clock.changed(self._monotonic(), speed, held)


class _Known:
    """Remembers the last view: tables that have not changed since are the same objects."""

    def __init__(self, recording: RecordedRun) -> None:
        self._recording = recording
        self._workers = by_worker(recording)
        self._mark: tuple[int, ...] = ()
        self._view: FederationView | None = None

    def view(self, at: float) -> FederationView:
        r = self._recording
        parts = (r.versions, r.events, r.attempts, r.receipts, r.updates, r.samples)
        mark = tuple(count_until(part, at) for part in parts)
        if self._view is None or mark != self._mark:
            before, self._view, self._mark = self._view, view_at(r, at), mark
            for name in ("versions", "events", "clients", "samples"):
                if before and getattr(before, name) == getattr(self._view, name):
                    self._view = replace(self._view, **{name: getattr(before, name)})
        info = self._view.info.model_copy(update={"updated_at": at})
        return replace(self._view, info=info, workers=workers_at(r, self._workers, at))


def count_until(things: Sequence[TimedRecord], at: float) -> int:
    """How many of them have happened, in their order."""
    return bisect_right(things, at, key=lambda thing: thing.at)


def until(things: Sequence[T], at: float) -> Sequence[T]:
    """Those that have happened."""
    return things[: count_until(things, at)]


def view_at(recording: RecordedRun, at: float) -> FederationView:
    """The run as it was at a time: what the coordinator would have shown."""
    versions = tuple(until(recording.versions, at)) or recording.versions[:1]
    events = tuple(until(recording.events, at)[-MANY_EVENTS:])
    open_tasks = open_at(recording, at)
    return FederationView(
        info=_info(recording, at, versions[-1].version, len(open_tasks)),
        clients=_clients(recording, at, open_tasks),
        workers=workers_at(recording, by_worker(recording), at),
        queues=(),
        versions=versions,
        events=events,
        samples=samples.shown(until(recording.samples, at)),
    )


def open_at(recording: RecordedRun, at: float) -> dict[str, AttemptRecord]:
    """The newest attempt of every task that has no receipt yet, by client."""
    settled = {each.task_id for each in until(recording.receipts, at)}
    issued = until(recording.attempts, at)
    return {each.client_id: each for each in issued if each.task_id not in settled}


def by_worker(recording: RecordedRun) -> dict[str, list[AcceptedUpdate]]:
    """The accepted updates of each worker, by its id, in their order."""
    found: dict[str, list[AcceptedUpdate]] = {}
    for each in recording.updates:
        found.setdefault(each.worker_id, []).append(each)
    return {name: found[name] for name in sorted(found)}


def workers_at(
    recording: RecordedRun, updates: Mapping[str, Sequence[AcceptedUpdate]], at: float
) -> tuple[Heartbeat, ...]:
    """The workers whose updates were accepted, from their first task until the recording's end.

    A worker trains for as long as its update says, until the update is accepted.

    Args:
        recording: The run.
        updates: By worker.
        at: The time.
    """
    beats = (_worker(recording, at, name, own) for name, own in updates.items())
    return tuple(beat for beat in beats if beat is not None)


def _worker(
    recording: RecordedRun, at: float, name: str, updates: Sequence[AcceptedUpdate]
) -> Heartbeat | None:
    if at < _start(updates[0]):
        return None
    done = count_until(updates, at)
    last = updates[done - 1] if done else None
    current = updates[done] if done < len(updates) and _start(updates[done]) <= at else None
    member = recording.clients.get(updates[0].client_id)
    beat = Heartbeat(
        worker_id=name,
        site=member.site if member else LOCAL_SITE,
        state="waiting",
        clients=tuple(dict.fromkeys(each.client_id for each in updates)),
        last_loss=last.stats.avg_loss if last else None,
        device="recorded",
        software=recording.software,
        sent_at=at,
    )
    if current is None:
        return beat
    seconds = max(current.stats.train_seconds, 1e-3)
    return beat.model_copy(
        update={
            "state": "training",
            "task_id": current.task_id,
            "client_id": current.client_id,
            "base_version": current.base_version,
            "progress": min(1.0, (at - _start(current)) / seconds),
            "tokens_per_s": current.stats.num_tokens / seconds,
        }
    )


def _start(update: AcceptedUpdate) -> float:
    return update.at - update.stats.train_seconds


def _clients(
    recording: RecordedRun, at: float, tasks: dict[str, AttemptRecord]
) -> tuple[ClientRow, ...]:
    versions = until(recording.versions, at) or recording.versions[:1]
    newest, phase = versions[-1], _phase(_ends(recording), versions[-1].version)
    kind = recording.config.phase[phase].kind
    issued = Counter(e.client_id for e in until(recording.attempts, at) if e.attempt == 1)
    applied = Counter(u.client_id for version in versions for u in version.updates)
    losses = {each.client_id: each.stats.avg_loss for each in until(recording.updates, at)}
    weights = {update.client_id: update.weight for update in newest.updates}
    lost = _named(recording, at, "quarantined")
    rows = []
    for name, member in recording.clients.items():
        task = tasks.get(name)
        row = ClientRow(
            client_id=name,
            site=member.site,
            rows=member.rows.get(kind, 0),
            issued=issued[name],
            participation=applied[name],
            task_id=task.task_id if task else None,
            base_version=task.base_version if task else None,
            staleness=max(0, newest.version - task.base_version) if task else None,
            last_loss=losses.get(name),
            weight=weights.get(name),
            quarantined=name in lost,
        )
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: row.client_id))


def _named(recording: RecordedRun, at: float, kind: str) -> set[str]:
    """Clients that an event of a kind was about."""
    events = (event for event in until(recording.events, at) if event.kind == kind)
    return {str(event.refs.get("client")) for event in events}


def _info(recording: RecordedRun, at: float, version: int, open_tasks: int) -> RunInfo:
    config, settled = recording.config, until(recording.receipts, at)
    ends = _ends(recording)
    accepted = sum(1 for each in settled if each.accepted)
    applied = sum(len(each.updates) for each in until(recording.versions, at))
    status, detail = _status(recording, at)
    return RunInfo(
        run=recording.run_id,
        name=config.run.name,
        status=status,
        detail=detail,
        version=version,
        total_versions=ends[-1],
        phase=_phase(ends, version),
        phases=tuple(phase.objective for phase in config.phase),
        phase_ends=ends,
        clients=len(recording.clients),
        buffered=max(0, accepted - applied),
        buffer_size=config.schedule.buffer,
        open_tasks=open_tasks,
        accepted=accepted,
        rejected=len(settled) - accepted,
        started_at=recording.started_at,
        updated_at=at,
        max_staleness=config.schedule.max_staleness,
        software=recording.software,
    )


def _status(recording: RecordedRun, at: float) -> tuple[RunStatus, str]:
    events = reversed(until(recording.events, at))
    last = next((event for event in events if event.kind != "samples"), None)
    if last is not None and last.kind == "finished":  # samples of the last version come later
        return "finished", last.text
    if last is not None and last.kind == "stopped":
        return "stopped", last.text
    if at < recording.ended_at:
        return "running", "as recorded"
    return "stopped", "the recording ends here"


def _ends(recording: RecordedRun) -> tuple[int, ...]:
    """The version that each phase ends with."""
    return tuple(accumulate(phase.versions for phase in recording.config.phase))


def _phase(ends: Sequence[int], version: int) -> int:
    """The phase in which tasks from a version train; the last one from its end on."""
    return next((at for at, end in enumerate(ends) if version < end), len(ends) - 1)
