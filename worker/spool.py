"""Files that a worker must not lose: the task that it acked, and answers without a receipt.

    STATE/<run id>/slots/0/pid             the process that holds the slot
    STATE/<run id>/slots/0/task            the task being trained or evaluated
    STATE/<run id>/slots/0/crashes         its id, and how often it ended this process
    STATE/<run id>/slots/0/updates/…       updates that wait for their receipt
    STATE/<run id>/slots/0/results/…       results of evaluations that do
    STATE/<run id>/clients/<client>/       private state of a client, under a file lock
        residual.safetensors               remainder of its last update (error feedback)
        residual.<slot>.<task>.<attempt>   the same of an update that may not be spooled yet
        reference.<digest>.safetensors     log-probabilities of its preference pairs

A slot belongs to one process at a time. A restarted worker takes the first free one, and with it
the work that its predecessor left there.

A residual counts from the moment when its update appears in the slot. It is renamed to
`residual.safetensors` right after that, at the latest before the update leaves the slot. A waiting
residual without its update therefore belongs to an update that was never spooled; the next worker
that trains the client removes it.

On an update's path after `worker/error_feedback.py`; next comes `worker/publisher.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from common.disk_errors import disk_errors
from common.errors import RunError, WireError
from common.files import make_private, sync_path, tighten, write_durable
from common.protocol.evaluations import EvalResult
from common.protocol.tasks import TrainTask
from common.protocol.updates import Update
from common.protocol.wire import pack
from worker.error_feedback import Residual
from worker.events import GOES_ON
from worker.site_task import SiteTask, unpack_task

MAX_SLOTS = 1024
RESIDUAL = "residual.safetensors"
PROBE_BYTES = 1 << 16


@dataclass(frozen=True)
class PendingUpdate:
    """Update, or result of an evaluation, on the disk that waits for its receipt."""

    task_id: str
    attempt: int
    path: Path
    is_evaluation: bool = False

    @property
    def update_id(self) -> str:
        return f"{self.task_id}.{self.attempt}"


class Slot:
    """Directory of one worker process; `claim_slot` returns one."""

    def __init__(self, path: Path, number: int, lock: FileLock) -> None:
        self.number = number
        self._lock = lock
        self._slots = path.parent
        self._clients = path.parent.with_name("clients")
        self._pid = path / "pid"
        self._task = path / "task"
        self._crashes = path / "crashes"
        self._updates = path / "updates"
        self._results = path / "results"

    def put_task(self, task: SiteTask) -> None:
        """Keep a task; once this returns it may be acked."""
        with self._disk_errors():
            write_durable(self._task, pack(task))

    def task(self) -> SiteTask | None:
        """Return the unfinished task, if there is one."""
        try:
            with self._disk_errors():
                if not self._task.exists():
                    return None
                frame = self._task.read_bytes()
            return unpack_task(frame)
        except WireError:  # left by another version of the software
            self.drop_task()
            return None

    def drop_task(self) -> None:
        with self._disk_errors():
            self._task.unlink(missing_ok=True)

    def check_disk(self) -> None:
        """Raise `DiskError` unless a small file can be written here."""
        probe = self._task.with_name("probe")
        with self._disk_errors():
            write_durable(probe, bytes(PROBE_BYTES))
            probe.unlink()

    @contextlib.contextmanager
    def running(self, task: SiteTask) -> Iterator[int]:
        """Yield how often a process was killed while it ran a task, in whichever attempt.

        The start is counted before the block, and no longer once the block ends, also with an
        error.
        """
        before = self._crashes_of(task)
        self._put_crashes(task, before + 1)
        try:
            yield before
        finally:
            self._put_crashes(task, before)

    def _crashes_of(self, task: SiteTask) -> int:
        try:
            with self._disk_errors():
                if not self._crashes.exists():
                    return 0
                task_id, _, count = self._crashes.read_text(encoding="utf-8").partition(" ")
            return int(count) if task_id == task.task_id else 0
        except ValueError:
            return 0

    def _put_crashes(self, task: SiteTask, count: int) -> None:
        with self._disk_errors():
            if count:
                write_durable(self._crashes, f"{task.task_id} {count}".encode())
            else:
                self._crashes.unlink(missing_ok=True)

    def put_update(self, update: Update, data: bytes) -> PendingUpdate:
        """Keep an update until its receipt comes; from now on its residual is the client's."""
        path = self._updates / f"{update.task_id}.{update.attempt}"
        pending = PendingUpdate(update.task_id, update.attempt, path)
        with self._disk_errors():
            write_durable(path, pack(update, data))
            self._promote_residuals(pending)
        return pending

    def put_result(self, result: EvalResult) -> PendingUpdate:
        """Keep the result of an evaluation until its receipt comes."""
        path = self._results / f"{result.task_id}.{result.attempt}"
        with self._disk_errors():
            if not self._results.is_dir():
                self._results.mkdir(mode=0o700)
                sync_path(self._results.parent)
            write_durable(path, pack(result))
        return PendingUpdate(result.task_id, result.attempt, path, is_evaluation=True)

    def pending_updates(self) -> list[PendingUpdate]:
        """Return the updates and results without a receipt, each sorted by name."""
        updates = []
        for folder in (self._updates, self._results):
            with self._disk_errors():
                paths = sorted(folder.glob("*"))
            for path in paths:
                task_id, _, attempt = path.name.rpartition(".")
                if attempt.isdigit():
                    evaluation = folder == self._results
                    updates.append(PendingUpdate(task_id, int(attempt), path, evaluation))
        return updates

    def is_spooled(self, update_id: str) -> bool:
        """Return whether an update is on the disk, in any slot of this run."""
        return any(self._slots.glob(f"*/updates/{update_id}"))

    def drop_update(self, pending: PendingUpdate) -> None:
        with self._disk_errors():
            self._promote_residuals(pending)
            pending.path.unlink(missing_ok=True)

    def frame(self, pending: PendingUpdate) -> bytes:
        """Return the bytes of an update or a result."""
        with self._disk_errors():
            return pending.path.read_bytes()

    def client_dir(self, client_id: str) -> Path:
        """Return the client's private directory, which may not exist yet."""
        return self._clients / client_id

    def residual(self, task: TrainTask) -> Residual:
        """Return the client's residual as its spooled updates left it; needs the client's lock."""
        directory = self.client_dir(task.client_id)
        with self._disk_errors():
            make_private(directory)
            for waiting in directory.glob("residual.[0-9]*"):
                _, slot, update_id = waiting.name.split(".", 2)
                if (self._slots / slot / "updates" / update_id).exists():
                    promote_residual(waiting)
                else:
                    waiting.unlink(missing_ok=True)
        own = f"residual.{self.number}.{task.task_id}.{task.attempt}"
        return Residual(directory / RESIDUAL, directory / own, task.phase)

    def hold(self) -> None:
        """Make the slot's folder usable, and name this process as its holder."""
        make_private(self._updates)
        write_durable(self._pid, str(os.getpid()).encode())

    def release(self) -> None:
        with contextlib.suppress(OSError):  # the next holder replaces it
            self._pid.unlink(missing_ok=True)
        self._lock.release()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        with disk_errors(self._task.parent, GOES_ON):
            yield

    def _promote_residuals(self, pending: PendingUpdate) -> None:
        for waiting in self._clients.glob(f"*/residual.{self.number}.{pending.update_id}"):
            promote_residual(waiting)


def claim_slot(state: Path, run: str) -> Slot:
    """Claim the first slot that no other process holds.

    Raises:
        RunError: The state directory cannot be written, or has no free slot.
    """
    slots = state / run / "slots"
    with disk_errors(slots, "start the worker again, or name another folder with --state"):
        make_private(slots)
        for private in (state / run, state / "inbox"):
            if private.is_dir():
                tighten(private)  # an earlier release left it open to others
        for number in range(MAX_SLOTS):
            path = slots / str(number)
            make_private(path)
            # Not thread-local: whichever thread ends the worker can release it.
            lock = FileLock(path / "lock", blocking=False, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            slot = Slot(path, number, lock)
            slot.hold()
            return slot
    raise RunError(f"{slots} has no free slot", "stop some of the workers")


def count_workers(state: Path) -> int:
    """Count the live processes that hold slots in this state directory, of any run.

    The id of a killed worker is counted if the system gave it to another process, until the slot is
    claimed again: that costs threads, not work.
    """
    pids = {_live_process(path) for path in state.glob("*/slots/*/pid")}
    return len(pids - {None})


def _live_process(path: Path) -> int | None:
    try:
        pid = int(path.read_text(encoding="ascii"))
        os.kill(pid, 0)  # signal 0 only checks
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    except PermissionError:  # another user's
        return pid
    return pid


def promote_residual(waiting: Path) -> None:
    """Make a waiting residual the client's current one."""
    with contextlib.suppress(FileNotFoundError):  # the trainer and the publisher both do this
        waiting.replace(waiting.with_name(RESIDUAL))
        sync_path(waiting.parent)


def client_lock(state: Path, run: str, client_id: str, timeout_s: float) -> FileLock:
    """Return the lock that guards a client's private state on this machine.

    Entering it raises `filelock.Timeout` if another process holds it for longer.
    """
    directory = state / run / "clients" / client_id
    with disk_errors(directory, GOES_ON):
        make_private(directory)
    return FileLock(directory / "lock", timeout=timeout_s)
