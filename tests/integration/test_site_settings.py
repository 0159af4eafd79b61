"""Settings of a site over a real RabbitMQ and a real Redis: hours, accepted models, bandwidth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from broker.protocol import LOCAL
from broker.rabbit import broker as rabbit
from broker.rabbit.broker import RabbitBroker
from common.errors import ConfigError, ModelError
from common.protocol.tasks import TaskRefusal, TrainTask
from common.protocol.wire import pack, unpack
from common.store.store import connect
from tests.integration.test_worker import RUN, Model, WorkerHarness, model, quick
from tests.support.processes import eventually
from tests.support.servers import Server
from worker.events import WorkerEventKind
from worker.factory import Connections, WorkerCallbacks, start_worker
from worker.service import Worker
from worker.settings.settings import SiteSettings

__all__ = ["model", "quick"]  # fixtures
NOON = datetime(2026, 6, 1, 12).timestamp()


@dataclass
class ServedHarness(WorkerHarness):
    """Harness of a worker over servers, with a clock that the test sets."""

    urls: tuple[str, str] = ("", "")
    now: float = NOON
    brokers: list[RabbitBroker] = field(default_factory=list)

    def connect_broker(self) -> RabbitBroker:
        broker = rabbit.connect(self.urls[0], lambda status: None)
        self.brokers.append(broker)
        return broker

    def serve_run(self) -> None:
        self.start_run()
        own, self.store = self.store, connect(self.urls[1])
        self.broker = self.connect_broker()  # type: ignore[assignment]
        self.broker.delete(self.topology)
        self.broker.declare(self.topology)
        self.updates = self.broker.consume_updates(self.topology, [LOCAL], 100)
        self.store.put_blob(RUN, self.model.frame)
        self.store.set_version(RUN, 0)
        self.store.set_info(RUN, own.get_info(RUN) or b"")
        self.store.set_run(self.settings.name, RUN)

    def start(self, **own: object) -> Worker:
        settings = replace(self.settings, site_settings=SiteSettings.model_validate(own))
        connections = Connections(
            self.connect_broker(), connect(self.urls[1]), connect(self.urls[1])
        )
        callbacks = WorkerCallbacks(
            on_event=lambda kind, text: self.events.append((kind, text)),
            on_progress=lambda message, fraction: None,
        )
        return start_worker(settings, RUN, connections, lambda: self.now, callbacks)

    def close(self) -> None:
        self.broker.delete(self.topology)
        for broker in self.brokers:
            broker.close()
        for key in self.store._redis.keys(f"fccl:{RUN}:*"):
            self.store._redis.delete(key)
        self.stores.close()


@pytest.fixture
def served(
    tmp_path: Path, model: Model, rabbitmq: Server, redis_server: Server
) -> Iterator[ServedHarness]:
    harness = ServedHarness(tmp_path, model, urls=(rabbitmq.url, redis_server.url))
    harness.serve_run()
    yield harness
    harness.close()


def test_a_worker_outside_its_hours_takes_nothing_and_begins_when_they_open(
    served: ServedHarness,
) -> None:
    served.issue("t1")
    with served.serving(served.start(hours="22:00-06:00")):
        text = eventually("rest", lambda: [t for k, t in served.events if k == "resting"])[0]
        assert text == "resting until Mon 22:00"
        beat = eventually(
            "resting", lambda: [b for b in served.store.heartbeats(RUN) if b.state == "resting"]
        )[0]
        assert beat.rests_until == datetime(2026, 6, 1, 22).timestamp() and beat.task_id is None
        depth = served.broker.depths(served.topology)[served.topology.task_queue(LOCAL)]
        assert depth.messages == 1
        served.now = datetime(2026, 6, 1, 22).timestamp()
        assert served.next_update().task_id == "t1"
    assert (WorkerEventKind.RESTING, "works again") in served.events


def test_a_task_in_training_at_the_end_of_the_hours_is_finished(served: ServedHarness) -> None:
    served.now = datetime(2026, 6, 1, 5, 59).timestamp()
    served.issue("t1", steps=30)
    with served.serving(served.start(hours="22:00-06:00")):
        eventually("task", lambda: [b for b in served.store.heartbeats(RUN) if b.task_id])
        served.now = NOON
        served.issue("t2", client_id="client_1")
        assert served.next_update().task_id == "t1"
        eventually("rest", lambda: [t for k, t in served.events if k == "resting"])
        depth = served.broker.depths(served.topology)[served.topology.task_queue(LOCAL)]
        assert depth.messages == 1


def next_refusal(served: ServedHarness) -> str:
    return unpack(TaskRefusal, served.next_message())[0].reason


def test_a_model_that_is_not_accepted_is_refused_before_anything_is_fetched(
    served: ServedHarness,
) -> None:
    served.issue("t1", base=served.model.ref.fields() | {"digest": "0" * 64})
    with served.serving(served.start(accept=["Qwen/*", f"sha256:{served.model.ref.digest}"])):
        assert "does not train the base model offline:gpt2-micro" in next_refusal(served)
        served.issue("t2")
        assert served.next_update().task_id == "t2"
    assert not any(b.wants for b in served.store.heartbeats(RUN))


def test_a_task_of_the_hub_cannot_name_a_path(served: ServedHarness) -> None:
    base = {"name": str(served.model.path), "kind": "hub", "digest": "0" * 64}
    served.issue("t1", base=base)
    with served.serving(served.start()):
        assert "is not the name of a model on the hub" in next_refusal(served)


def test_settings_that_do_not_fit_a_task_are_the_reason_of_its_refusal(
    served: ServedHarness,
) -> None:
    with served.serving(served.start(micro_batch=3, evaluation=False)):
        served.issue("t1", batch_size=2, holdout_budget=0.15)
        assert "micro_batch 3 is above the batch size 2 of task t1" in next_refusal(served)
        served.issue("t2")
        assert "needs the loss on the holdout" in next_refusal(served)
        served.issue("t3", holdout_budget=0.15)
        stats = served.next_update().stats
        assert stats.loss_before is None and stats.loss_after is None


@pytest.mark.parametrize(
    ("own", "error"),
    [({"accept": ["gpt2"]}, ModelError), ({"micro_batch": 5}, ConfigError)],
)
def test_settings_that_do_not_fit_the_run_end_the_worker_at_its_start(
    served: ServedHarness, own: dict[str, object], error: type[Exception]
) -> None:
    current = served.current_model().model_copy(update={"min_batch_size": 4})
    served.store.set_model(RUN, pack(current))
    with pytest.raises(error, match=r"does not train|above the batch size 4 of the run's plan"):
        served.start(**own)


def test_a_limit_of_bandwidth_leaves_the_bytes_as_they_are(served: ServedHarness) -> None:
    """The second transfer waits for the first in both directions; the update is whole."""
    tasks: list[TrainTask] = [served.issue("t1"), served.issue("t2", client_id="client_1")]
    with served.serving(served.start(upload="100 kB/s", download="100 kB/s")):
        updates = [served.next_update() for _ in tasks]  # verified by their digests
    assert [update.task_id for update in updates] == ["t1", "t2"]
