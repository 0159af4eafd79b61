"""Publisher of updates: sends them to the coordinator and waits for receipts, in its own thread.

An update stays on the disk until its receipt comes; without one it is published again after a
minute. Results of evaluations travel in the same way. On an update's path after `worker/spool.py`;
next comes `broker/chunks.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from broker.chunks import split_update
from broker.protocol import Broker, BrokerClosed, Message, QueueFull, Site, Topology
from common.errors import DataError, DiskError, FcclError, RunError, StoreError
from common.protocol.tasks import Receipt, TaskRefusal
from common.protocol.wire import pack
from common.store.store import Store
from worker.events import EventCallback, WorkerEventKind
from worker.observer import Observer
from worker.settings.bandwidth import Throttle, TransferStopped
from worker.site.sent_log import SentLogWriter
from worker.spool import PendingUpdate, Slot

REPUBLISH_S = 60.0
POLL_S = 0.5


class Publisher:
    """Publishes the updates of one slot for one run, from `start` to `close`.

    `on_receipt` is called with the receipt of an update while that is still on the disk; after a
    crash, or if it raises `DataError`, it is called again. `on_publishing` is called with the
    update that is being sent, and with None at its end. Callbacks run in the publisher's thread.
    `public_text` removes from the reason of a refusal what is only this site's business.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        topology: Topology,
        site: Site,
        slot: Slot,
        on_event: EventCallback,
        metrics: Observer | None = None,
        on_receipt: Callable[[PendingUpdate, Receipt], None] = lambda pending, receipt: None,
        throttle: Throttle | None = None,
        on_publishing: Callable[[PendingUpdate | None], None] = lambda pending: None,
        public_text: Callable[[str], str] = str,
        sent_log: SentLogWriter | None = None,
    ) -> None:
        self._broker, self._store = broker, store
        self._topology, self._site, self._slot = topology, site, slot
        self._on_event = on_event
        self._metrics = metrics or Observer()
        self._on_receipt = on_receipt
        self._throttle = throttle or Throttle(None)
        self._on_publishing = on_publishing
        self._public_text = public_text
        self._sent_log = sent_log
        self._published: dict[str, float] = {}  # update id → monotonic time
        self.settled = 0  # updates whose receipt has come
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._late = threading.Event()  # nobody waits for the rest any more
        self._thread = threading.Thread(target=self._publish_all, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def refuse(self, refusal: TaskRefusal) -> None:
        """Tell the coordinator that a task cannot be trained here.

        Raises:
            BrokerError: The broker is out of reach; the task's lease will run out.
        """
        reason = self._public_text(refusal.reason)
        refusal = refusal.model_copy(update={"reason": reason})
        message = Message(pack(refusal), message_id=f"{refusal.task_id}.{refusal.attempt}")
        self._broker.publish_update(self._topology, self._site, message)

    def wake(self) -> None:
        """Publish a new update now instead of at the next poll."""
        self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Stop once everything is published, or the time is up; the rest stays on the disk."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._late.set()

    def _publish_all(self) -> None:
        while True:
            last = self._closing.is_set()  # one more round: drops updates with a receipt first
            try:
                self._collect_receipts()
                for pending in self._slot.pending_updates():
                    self._publish(pending)
                if last and not self._has_unpublished():
                    return
            except (BrokerClosed, TransferStopped):
                return
            except FcclError as error:
                self._report_waiting(error)
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _has_unpublished(self) -> bool:
        return any(p.update_id not in self._published for p in self._slot.pending_updates())

    def _collect_receipts(self) -> None:
        """Drop updates with a receipt. Without the store, updates are published all the same."""
        run, site = self._topology.run, self._site.name
        try:
            for pending in self._slot.pending_updates():
                receipt = self._store.get_receipt(run, site, pending.task_id)
                if receipt is not None:
                    self._try_to_settle(pending, receipt)
        except StoreError as error:
            self._report_waiting(error)

    def _try_to_settle(self, pending: PendingUpdate, receipt: Receipt) -> None:
        """Settle an update; where the disk refuses, it stays until the next poll."""
        try:
            self._settle(pending, receipt)
        except (DataError, RunError) as error:
            self._report_waiting(error)

    def _report_waiting(self, error: FcclError) -> None:
        text = str(error) if isinstance(error, DiskError) else error.what
        self._on_event(WorkerEventKind.WAITING, text)

    def _publish(self, pending: PendingUpdate) -> None:
        since = self._published.get(pending.update_id)
        if since is not None and time.monotonic() - since < REPUBLISH_S:
            return
        frame = self._slot.frame(pending)
        if self._sent_log is not None:
            self._sent_log.append_frame(frame)
        self._on_publishing(pending)
        try:
            for message in split_update(pending.update_id, frame):
                # The connection has a thread of its own, which this pause does not hold up.
                self._throttle.pace(len(message.body), self._late)
                self._broker.publish_update(self._topology, self._site, message)
        except QueueFull:
            self._on_event(WorkerEventKind.WAITING, "this site's update queue is full")
            return
        finally:
            self._on_publishing(None)
        self._published[pending.update_id] = time.monotonic()
        self._metrics.on_publish(len(frame))

    def _settle(self, pending: PendingUpdate, receipt: Receipt) -> None:
        if not pending.is_evaluation:
            self._on_receipt(pending, receipt)
            self._metrics.on_receipt(receipt.state)
            self.settled += 1
        if self._sent_log is not None:
            self._sent_log.append_receipt(receipt)
        self._slot.drop_update(pending)
        self._published.pop(pending.update_id, None)
        reason = f": {receipt.reason}" if receipt.reason else ""
        what = "evaluation" if pending.is_evaluation else "update"
        text = f"{what} {pending.update_id} {receipt.state}{reason}"
        self._on_event(WorkerEventKind(receipt.state), text)
