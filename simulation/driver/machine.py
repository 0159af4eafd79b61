"""Machine of one virtual client: takes tasks, works on them for a while, and sends answers.

A machine that is switched off begins its task again when it is back, as a worker does, which keeps
its task on the disk. A cut of the network stops no work; what is sent waits for its end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from coordinator.core.events import WorkerSignal
from simulation.driver.clock import VirtualClock
from simulation.population.availability import Interval, elapse, is_inside
from simulation.population.client import VirtualClient
from simulation.population.streams import Streams
from worker.site_task import SiteTask


@dataclass(frozen=True)
class Job:
    """A task on a machine."""

    task: SiteTask
    number: int  # of the tasks that this client has begun, from 0
    begun_at: float
    download_s: float


@dataclass(frozen=True)
class MachineHooks:
    """What a machine asks of the simulation."""

    work_s: Callable[[VirtualClient, SiteTask], float]
    """Time that a task takes."""
    answer_bytes: Callable[[SiteTask], int]
    task_bytes: Callable[[SiteTask], int]
    is_wanted: Callable[[SiteTask], bool]
    """Whether a task is still open."""
    deliver: Callable[[VirtualClient, Job], None]
    """Called when an answer arrives at the coordinator."""
    on_lost: Callable[[VirtualClient, Job], None]
    on_signal: Callable[[VirtualClient, WorkerSignal | None, bool], None]
    """Called with a machine's heartbeat when it changes, None while the coordinator gets none, and
    with whether the machine has appeared or vanished."""


class Machine:
    """State of one client's machine."""

    def __init__(
        self, client: VirtualClient, clock: VirtualClock, streams: Streams, hooks: MachineHooks
    ) -> None:
        self.client, self.is_on = client, True
        self._clock, self._streams, self._hooks = clock, streams, hooks
        self._waiting: deque[tuple[SiteTask, float]] = deque()
        self._job: Job | None = None
        self._epoch = 0  # counts what ends the present work early
        self._begun = 0
        self._is_done = False  # the present job is done, and its answer on the way
        self._idle = WorkerSignal(client.name, False, None)

    def start(self, until: float) -> None:
        """Send the first heartbeat, and plan the times off and those without network."""
        client = self.client
        if client.outages or client.availability < 1 or client.gone_at < math.inf:
            self._plan_outage(client.each_outage(self._streams, until))
        for start, end in client.cuts:
            self._clock.at(start, self._appear_or_vanish)
            if end < math.inf:
                self._clock.at(end, self._appear_or_vanish)
        self._hooks.on_signal(client, self._signal(), True)

    def _signal(self) -> WorkerSignal | None:
        """Return its heartbeat; None while the coordinator gets none."""
        cuts = self.client.cuts
        if not self.is_on or (cuts and is_inside(cuts, self._clock.seconds)):
            return None
        if self._job is None:
            return self._idle
        return WorkerSignal(self.client.name, True, self._job.task.task_id)

    def _appear_or_vanish(self) -> None:
        self._hooks.on_signal(self.client, self._signal(), True)

    def receive(self, task: SiteTask) -> None:
        """Send a task to the machine."""
        seconds = self.client.download_s(self._hooks.task_bytes(task))
        at = elapse(self.client.cuts, self._clock.seconds, seconds)
        self._clock.at(at, lambda: self._take(task, seconds))

    def cancel(self, task_id: str) -> None:
        """End the work on a task that is closed."""
        if self._job is not None and self._job.task.task_id == task_id:
            self._end_job()

    def _take(self, task: SiteTask, download_s: float) -> None:
        if self._job is not None and self._job.task.task_id == task.task_id:
            return  # a newer attempt of what it works on
        self._waiting.append((task, download_s))
        self._begin_next()

    def _begin_next(self) -> None:
        while self._job is None and self.is_on and self._waiting:
            task, download_s = self._waiting.popleft()
            if self._hooks.is_wanted(task):
                self._job = Job(task, self._begun, self._clock.seconds, download_s)
                self._begun += 1
                self._hooks.on_signal(self.client, self._signal(), False)
                self._work()

    def _work(self) -> None:
        """Begin the present job, from its start."""
        job, epoch = self._job, self._epoch
        assert job is not None
        seconds = self._hooks.work_s(self.client, job.task)
        self._clock.after(seconds, lambda: self._send(job, epoch))

    def _send(self, job: Job, epoch: int) -> None:
        if epoch != self._epoch:
            return
        self._epoch += 1
        if self.client.dropout:
            rng = self._streams.of("dropout", self.client.index, job.number)
            if rng.random() < self.client.dropout:
                self._hooks.on_lost(self.client, job)
                self._end_job()
                return
        self._is_done = True
        self._upload(job, self._epoch)

    def _upload(self, job: Job, epoch: int) -> None:
        seconds = self.client.upload_s(self._hooks.answer_bytes(job.task))
        at = elapse(self.client.cuts, self._clock.seconds, seconds)
        self._clock.at(at, lambda: self._arrive(job, epoch))

    def _arrive(self, job: Job, epoch: int) -> None:
        if epoch == self._epoch:
            self._end_job(begin_next=False)
            self._hooks.deliver(self.client, job)
            self._begin_next()

    def _end_job(self, *, begin_next: bool = True) -> None:
        self._job, self._is_done = None, False
        self._epoch += 1
        self._hooks.on_signal(self.client, self._signal(), False)
        if begin_next:
            self._begin_next()

    def _plan_outage(self, outages: Iterator[Interval]) -> None:
        following = next(outages, None)
        if following is None:
            return
        start, end = following
        if start <= 0:
            self.is_on = False
        else:
            self._clock.at(start, self._switch_off)
        if end < math.inf:
            self._clock.at(end, lambda: self._switch_on(outages))

    def _switch_off(self) -> None:
        self.is_on = False
        self._epoch += 1
        self._appear_or_vanish()

    def _switch_on(self, outages: Iterator[Interval]) -> None:
        self.is_on = True
        self._appear_or_vanish()
        if self._job is not None and self._is_done:
            self._upload(self._job, self._epoch)
        elif self._job is not None:
            self._work()
        self._begin_next()
        self._plan_outage(outages)
