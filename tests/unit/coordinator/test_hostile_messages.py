"""Hostile and broken messages are dead-lettered with a reason, and the run continues."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from broker.chunks import split_update
from broker.embedded.broker import EmbeddedBroker, EmbeddedConsumer
from broker.protocol import LOCAL, Delivery, Message
from common.errors import BrokerError
from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import TaskRefusal, TrainTask
from common.protocol.wire import pack
from tests.support.polled_federation import (
    CHUNK,
    EXAMPLE_TASK,
    PolledFederation,
    check_complete,
    update,
)


def hostile(federation: PolledFederation) -> list[Message]:
    """Return messages, each of which has to be dead-lettered."""
    task = TrainTask.model_validate_json(EXAMPLE_TASK)
    whole = update(task)
    good = next(iter(split_update("t000001.1", whole, CHUNK)))
    alone = partial(split_update, chunk_bytes=CHUNK)
    refusal = TaskRefusal(
        task_id="t000099", attempt=1, client_id="client_0", worker_id="w", reason="x\x1b[2J"
    )
    garbage = pack(refusal)[: CHUNK // 2]
    return [
        Message(b""),
        Message(b"\x00" * 100),
        Message(pack(refusal)),
        Message(pack(Heartbeat(worker_id="w", site="local", state="waiting"))),
        replace(good, headers={**good.headers, "chunk_sha256": "0" * 64}),
        replace(good, headers={**good.headers, "total_size": 1 << 60}),
        replace(good, headers={**good.headers, "update_id": "../../run"}),
        replace(good, headers={**good.headers, "update_id": "t000001"}),
        *alone("t000099.1", garbage),
        *alone("t000098.1", b"\x00" * 100),
    ]


def test_hostile_messages_are_dead_lettered_with_a_reason_and_the_run_continues(
    federation: PolledFederation,
) -> None:
    sent: list[Message] = []

    def attack() -> None:
        sent.extend(hostile(federation))
        for message in sent:
            federation.site_broker.publish_update(federation.topology, LOCAL, message)
        forger = EmbeddedBroker(federation.server, user="mallory")
        forger.publish_update(federation.topology, LOCAL, Message(b"hello"))

    federation.once_issued(attack)
    outcome = federation.serve()
    reasons = federation.dead_letter_reasons()
    assert len(reasons) == len(sent) + 1 and all(reasons)
    assert "user of its site" in reasons[-1]
    check_complete(federation, outcome)
    warnings = [event.text for event in federation.events if event.level == "warning"]
    assert warnings and all(text.isprintable() for text in warnings)


def test_an_update_for_a_task_of_another_client_changes_nothing(
    federation: PolledFederation,
) -> None:
    def forge() -> None:
        task = TrainTask.model_validate_json(EXAMPLE_TASK)
        frame = update(task, client_id="client_2")
        federation.publish(frame, "t000001.1")

    federation.once_issued(forge)
    outcome = federation.serve()
    assert federation.dead_letter_reasons() == ["task t000001 was issued to another client"]
    check_complete(federation, outcome)


def test_a_flawed_update_gets_a_rejecting_receipt(federation: PolledFederation) -> None:
    def flawed() -> None:
        task = TrainTask.model_validate_json(EXAMPLE_TASK)
        federation.publish(update(task, base_version=7), "t000001.1")

    federation.once_issued(flawed)
    outcome = federation.serve()
    assert outcome.complete
    receipt = federation.store.get_receipt(federation.topology.run, "local", "t000001")
    assert receipt is not None and receipt.state == "rejected"
    assert receipt.reason.startswith("base version 7")
    assert federation.dead_letters() == []


def test_a_dead_letter_that_the_broker_does_not_take_is_redelivered_and_the_run_continues(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    reject = EmbeddedConsumer.reject
    failures = [BrokerError("the broker restarts")]

    def failing(self: EmbeddedConsumer, delivery: Delivery, reason: str) -> None:
        if failures:
            raise failures.pop()
        reject(self, delivery, reason)

    monkeypatch.setattr(EmbeddedConsumer, "reject", failing)
    federation.once_issued(
        lambda: federation.site_broker.publish_update(
            federation.topology, LOCAL, Message(b"no frame")
        )
    )
    check_complete(federation, federation.serve())
    assert [message.body for message in federation.dead_letters()] == [b"no frame"]
    assert any(event.kind == "broker" for event in federation.events)


def test_a_refusal_that_is_delivered_twice_is_no_dead_letter(federation: PolledFederation) -> None:
    def refuse() -> None:
        refusal = TaskRefusal(
            task_id="t000001", attempt=1, client_id="client_0", worker_id="w", reason="no disk"
        )
        for _ in range(2):
            federation.site_broker.publish_update(
                federation.topology, LOCAL, Message(pack(refusal))
            )

    federation.once_issued(refuse)
    assert federation.serve().complete
    assert federation.dead_letters() == []
    receipt = federation.store.get_receipt(federation.topology.run, "local", "t000001")
    assert receipt is not None and receipt.state == "rejected"  # the site has no other worker
