"""Brings updates to the coordinator and waits for their receipts, in a thread of its own.

An update stays on the disk until its receipt is there; without one it is published again after a
minute. After `common/protocol/wire.py` on an update's way, before `broker`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from broker.chunks import split_update
from broker.protocol import Broker, BrokerClosed, Message, QueueFull, Site, Topology
from common.errors import BrokerError, StoreError
from common.protocol.tasks import Receipt, TaskRefusal
from common.protocol.wire import pack
from common.store.store import Store
from worker.events import EventCallback, WorkerEventKind
from worker.observer import Nobody, Observer
from worker.spool import PendingUpdate, Slot

REPUBLISH_S = 60.0
POLL_S = 0.5


class Publisher:
    """Publishes one slot's updates for one run."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        topology: Topology,
        site: Site,
        slot: Slot,
        told: EventCallback,
        observe: Observer | None = None,
        settled: Callable[[PendingUpdate, Receipt], None] = lambda pending, receipt: None,
    ) -> None:
        """Start publishing whatever the slot holds.

        Args:
            broker: Connected as the site's user.
            store: Where receipts appear.
            topology: Of the run.
            site: Whose exchange to write to.
            slot: Where the updates lie.
            told: Called with the kind and text of what happened.
            observe: Told what was sent, and what became of it.
            settled: Told of a receipt while the update is still on the disk; maybe more than once.
        """
        self._broker, self._store = broker, store
        self._topology, self._site, self._slot = topology, site, slot
        self._told = told
        self._observe = observe or Nobody()
        self._told_settled = settled
        self._published: dict[str, float] = {}  # update id → monotonic time
        self.settled = 0
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def refuse(self, refusal: TaskRefusal) -> None:
        """Tell the coordinator that a task cannot be trained here.

        Raises:
            BrokerError: The broker is out of reach; the task's lease will run out.
        """
        message = Message(pack(refusal), message_id=f"{refusal.task_id}.{refusal.attempt}")
        self._broker.publish_update(self._topology, self._site, message)

    def wake(self) -> None:
        """There is a new update."""
        self._wake.set()

    def unpublished(self) -> int:
        """Updates that the broker has not confirmed."""
        return sum(p.update_id not in self._published for p in self._slot.pending())

    def stop(self, timeout_s: float) -> None:
        """Stop once everything is published, or the time is up; the disk keeps the rest."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            last = self._stopped.is_set()  # one round more: what is settled need not be sent
            try:
                self._collect()
                self._send()
            except BrokerClosed:
                return
            except BrokerError as error:
                self._told(WorkerEventKind.WAITING, error.what)
            if last and not self.unpublished():
                return
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _collect(self) -> None:
        """Let go of what has its receipt. Without the store, updates are sent all the same."""
        try:
            for pending in self._slot.pending():
                receipt = self._store.get_receipt(
                    self._topology.run, self._site.name, pending.task_id
                )
                if receipt is not None:
                    self._settle(pending, receipt)
        except StoreError as error:
            self._told(WorkerEventKind.WAITING, error.what)

    def _send(self) -> None:
        for pending in self._slot.pending():
            self._publish(pending)

    def _publish(self, pending: PendingUpdate) -> None:
        since = self._published.get(pending.update_id)
        if since is not None and time.monotonic() - since < REPUBLISH_S:
            return
        frame = pending.path.read_bytes()
        try:
            for message in split_update(pending.update_id, frame):
                self._broker.publish_update(self._topology, self._site, message)
        except QueueFull:
            self._told(WorkerEventKind.WAITING, "this site's update queue is full")
            return
        self._published[pending.update_id] = time.monotonic()
        self._observe.published(len(frame))

    def _settle(self, pending: PendingUpdate, receipt: Receipt) -> None:
        self._told_settled(pending, receipt)
        self._slot.drop_update(pending)
        self._published.pop(pending.update_id, None)
        self.settled += 1
        self._observe.settled(receipt.state)
        reason = f": {receipt.reason}" if receipt.reason else ""
        self._told(
            WorkerEventKind(receipt.state), f"update {pending.update_id} {receipt.state}{reason}"
        )
