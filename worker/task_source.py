"""Source of a worker's tasks: the task left on the disk, or the next one from the site's queue.

First step of a task at a worker; next comes `worker/task_runner.py`, or
`worker/evaluation_runner.py`.
"""

from __future__ import annotations

from broker.protocol import Broker, Site, TakenTask, Topology
from common.errors import BrokerError, DiskError, WireError
from worker.events import EventCallback, WorkerEventKind
from worker.site_task import SiteTask, unpack_task
from worker.spool import Slot


class TaskSource:
    """Takes tasks, and keeps each on the disk before it acks it.

    No message stays unacknowledged while a model trains, and a killed worker continues its task.
    """

    def __init__(
        self,
        broker: Broker,
        topology: Topology,
        site: Site,
        slot: Slot,
        on_event: EventCallback,
    ) -> None:
        self._broker, self._topology, self._site = broker, topology, site
        self._slot = slot
        self._on_event = on_event

    def next_task(self, timeout_s: float) -> SiteTask | None:
        """Return the task to run next; None if no task came in time.

        Raises:
            DiskError: The disk refuses; a task that was taken is on the queue again.
        """
        if (kept := self._slot.task()) is not None:
            return kept
        taken = self._broker.take_task(self._topology, self._site, timeout_s)
        return None if taken is None else self._keep(taken)

    def _keep(self, taken: TakenTask) -> SiteTask | None:
        try:
            task = unpack_task(taken.message.body)
            if task.run != self._topology.run:
                raise WireError(f"a task of run {task.run}")
        except WireError as error:
            self._reject(taken, error.what)
            return None
        try:
            self._slot.put_task(task)
        except DiskError:
            taken.requeue()
            raise
        taken.ack()
        return task

    def _reject(self, taken: TakenTask, reason: str) -> None:
        text = f"a message on the task queue: {reason}"
        self._on_event(WorkerEventKind.REJECTED, text)
        try:
            taken.reject(reason)
        except BrokerError as error:  # the message stays on the queue, for the next turn
            self._on_event(WorkerEventKind.WAITING, error.what)
            taken.requeue()
