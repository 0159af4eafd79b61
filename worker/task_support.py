"""What the runners of tasks share: refusals, crashes, and tasks that end before they are done.

`worker/task_runner.py` trains and `worker/evaluation_runner.py` evaluates with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from threading import Event as Flag
from typing import TypeVar

from broker.protocol import Site
from common.disk_errors import is_refusal, translate
from common.errors import DiskError, FcclError, ModelError
from common.protocol.run_plan import RunPlan
from common.protocol.tasks import BaseRef
from common.store.store import Store
from learning.training.out_of_memory import REMEDY
from worker.events import GOES_ON, EventCallback, WorkerEventKind
from worker.heartbeat import HeartbeatSender
from worker.models.source import ModelSource
from worker.observer import Observer
from worker.review.task_check import check_planned
from worker.settings.bandwidth import TransferStopped
from worker.settings.settings import SiteSettings
from worker.site.sent_log import SentLogWriter
from worker.site_task import SiteTask
from worker.spool import Slot
from worker.task_failures import TaskFailures

MAX_CRASHES = 3  # of this process in one task, until the task is refused


DISK_RETRY_S = 1.0

T = TypeVar("T")


class TaskResult(Enum):
    """Outcome of one attempt to run a task."""

    TRAINED = auto()
    EVALUATED = auto()
    SETTLED = auto()  # it has its receipt already
    ABANDONED = auto()  # its answer would not count any more
    INTERRUPTED = auto()  # the worker was stopped; the task stays for the next start
    POSTPONED = auto()  # something is missing; the task stays for another try

    @property
    def is_final(self) -> bool:
        """Whether the task has ended; otherwise it stays on the disk."""
        return self not in (TaskResult.INTERRUPTED, TaskResult.POSTPONED)


@dataclass(frozen=True)
class TaskSupport:
    """Parts of a worker that every task uses."""

    run: str
    site: Site
    worker_id: str
    store: Store
    slot: Slot
    source: ModelSource
    heartbeats: HeartbeatSender
    on_event: EventCallback
    metrics: Observer
    settings: SiteSettings = SiteSettings()  # noqa: RUF009 - frozen
    plan: RunPlan | None = None  # that the people of the site were shown
    sent_log: SentLogWriter | None = None  # of an invited site
    failures: TaskFailures = field(default_factory=TaskFailures)

    def attempt(
        self, task: SiteTask, abandon: Flag, execute: Callable[[], TaskResult]
    ) -> TaskResult:
        """Run a task by `execute`, unless it is settled.

        Errors that are no `FcclError`, which torch and others raise, become refusals without their
        text. A stopped transfer interrupts or abandons the task.

        Raises:
            ConfigError: The task is not of the plan that the site was shown.
            DiskError: The disk refuses.
        """
        if self.store.get_receipt(self.run, self.site.name, task.task_id) is not None:
            return TaskResult.SETTLED
        if self.plan is not None:
            check_planned(self.plan, task)
        try:
            return execute()
        except TransferStopped:
            return self.end_early(task, abandon)
        except FcclError:
            raise
        except Exception as error:
            if is_refusal(error) and (refusal := translate(error, then=GOES_ON)) is not None:
                raise refusal from None
            raise self.failures.refusal(task, error) from None

    def persist(self, write: Callable[[], T], abandon: Flag) -> T:
        """Return what `write` returns, which is called until the disk permits it.

        So what was trained need not be trained again.

        Raises:
            DiskError: The disk still refuses when the task is to end.
        """
        while True:
            try:
                return write()
            except DiskError as error:
                self.on_event(WorkerEventKind.WAITING, str(error))
                if self.should_stop(abandon) or abandon.wait(DISK_RETRY_S):
                    raise
            self.metrics.on_turn()

    def fetch_base(self, base: BaseRef, stop: Flag) -> Path | None:
        """Return the directory of a base model; None if `stop` was set while it was fetched.

        Raises:
            ModelError, StoreError: As `ModelSource.fetch_base` does.
        """
        return self.source.fetch_base(base, self._request_base, stop)

    def _request_base(self, digest: str | None) -> None:
        """Ask the coordinator for a base model through the heartbeat; None ends the request."""
        self.heartbeats.update(wants=digest, now=True)

    @contextmanager
    def running(self, task: SiteTask) -> Iterator[int]:
        """Yield how often this process was killed while it ran a task.

        Raises:
            ModelError: That was too often.
        """
        with self.slot.running(task) as crashes:
            if crashes >= MAX_CRASHES:
                raise ModelError(
                    f"this worker ended {crashes} times while it ran {task.task_id}: it was"
                    " probably killed for lack of memory",
                    REMEDY,
                )
            yield crashes

    def should_stop(self, abandon: Flag) -> bool:
        """Return whether the current task is to end now, done or not."""
        return abandon.is_set() or bool(self.heartbeats.unwanted_reason())

    def end_early(self, task: SiteTask, abandon: Flag) -> TaskResult:
        """Leave a task for the next start if the worker was stopped, and abandon it otherwise."""
        if not abandon.is_set():
            return self.abandon(task, self.heartbeats.unwanted_reason())
        self.metrics.on_task_end("abandoned")
        text = f"{task.task_id} is left for the next start"
        self.on_event(WorkerEventKind.ABANDONED, text)
        return TaskResult.INTERRUPTED

    def abandon(self, task: SiteTask, reason: str) -> TaskResult:
        """Report that the answer to a task would not count any more."""
        self.metrics.on_task_end("abandoned")
        self.on_event(WorkerEventKind.ABANDONED, f"{task.task_id}: {reason}")
        return TaskResult.ABANDONED
