"""The publisher of an invited site keeps the site's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import Message, Site, Topology
from common.protocol.tasks import Receipt
from common.store.embedded import EmbeddedStore
from tests.support.processes import eventually
from tests.support.worker_records import update
from worker.events import WorkerEventKind
from worker.publisher import Publisher
from worker.site.sent_log import SentLogWriter, read_log
from worker.spool import Slot, claim_slot

SITE = Site("hospital-a")
RUN = Topology("run-1", (SITE,))


class WatchingBroker(EmbeddedBroker):
    """Broker that notes how many lines the log has when a message is published."""

    def __init__(self, log: SentLogWriter) -> None:
        super().__init__(EmbeddedServer())
        self._log = log
        self.lines: list[int] = []

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        self.lines.append(len(read_log(self._log.path).sent))
        super().publish_update(topology, site, message)


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    slot = claim_slot(tmp_path, RUN.run)
    yield slot
    slot.release()


def test_an_update_is_in_the_log_before_it_is_sent_and_its_receipt_follows(
    tmp_path: Path, slot: Slot
) -> None:
    log = SentLogWriter(tmp_path, RUN.run, SITE.name, lambda: 1.0)
    broker, store = WatchingBroker(log), EmbeddedStore().connect()
    broker.declare(RUN)
    slot.put_update(update("t1"), b"")
    publisher = Publisher(broker, store, RUN, SITE, slot, lambda kind, text: None, sent_log=log)
    publisher.start()
    eventually("the update is sent", lambda: broker.lines)
    store.put_receipt(RUN.run, SITE.name, Receipt(task_id="t1", attempt=1, state="accepted"))
    eventually("the update is settled", lambda: publisher.settled)
    publisher.close(10)
    assert broker.lines == [1]
    assert [note.receipt for note in read_log(log.path).receipts] == ["accepted"]


def test_nothing_is_sent_while_the_log_cannot_be_written(tmp_path: Path, slot: Slot) -> None:
    log = SentLogWriter(tmp_path, RUN.run, SITE.name, lambda: 1.0)
    log.path.mkdir()
    broker, store = WatchingBroker(log), EmbeddedStore().connect()
    broker.declare(RUN)
    slot.put_update(update("t1"), b"")
    events: list[tuple[WorkerEventKind, str]] = []
    publisher = Publisher(
        broker, store, RUN, SITE, slot, lambda *event: events.append(event), sent_log=log
    )
    publisher.start()
    kind, text = eventually("the problem is reported", lambda: events and events[0])
    assert kind is WorkerEventKind.WAITING and "sent.jsonl" in text
    assert broker.lines == []
    log.path.rmdir()
    eventually("the update is sent", lambda: broker.lines)
    publisher.close(10)
