"""The worker over a broker and a store in this process: killed, repeated, refused, abandoned.

The test is the coordinator: it puts the adapter into the store, tasks on the queue, and reads what
comes back. Where a worker is killed, it runs in a process of its own that ends itself with SIGKILL
at the chosen point; the next worker then gets the same state directory.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from broker.chunks import parse_chunk
from broker.dead_letter import DEAD_REASON
from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL, Message, Site, TakenTask, Topology
from common.errors import DataError, ModelError
from common.model_cache import find_installed
from common.protocol import codec
from common.protocol.tasks import BaseRef, BlobRef, Receipt, TaskRefusal, TrainTask
from common.protocol.updates import Update
from common.protocol.versions import Adapter
from common.protocol.wire import kind_of, pack, unpack
from common.store.embedded import EmbeddedStore
from common.store.store import Store
from common.store.view import RunInfo
from coordinator.publish.base_model_server import BaseModelServer
from learning.data.rows import write
from learning.models import base, hub, loader, lora
from learning.progress import ProgressCallback
from learning.synthetic.instructions import make_instructions
from learning.training.device import Compute
from learning.training.loop import StepReport
from tests.support.chunks import join_chunks
from tests.support.processes import eventually, forked
from tests.support.worker_records import task as make_task
from worker import heartbeat, publisher, service, task_runner
from worker.events import WorkerEventKind
from worker.factory import Connections, WorkerCallbacks, WorkerSettings, start_worker
from worker.service import Worker, WorkerSummary
from worker.site.run_discovery import find_run
from worker.spool import claim_slot, client_lock

RUN, NAME = "run-1", "small"
COMPUTE = Compute(torch.device("cpu"), threads=1, autocast=False)


@dataclass(frozen=True)
class Model:
    """The base model and version 0, made once."""

    path: Path
    cache: Path
    ref: BaseRef
    frame: bytes

    def task(self, task_id: str, **changed: Any) -> TrainTask:
        blob = BlobRef(sha256=codec.digest(self.frame), nbytes=len(self.frame))
        fields = {"base": self.ref.fields(), "adapter": blob.fields()}
        return make_task(task_id, **(fields | changed))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Model:
    found = base.resolve("offline:gpt2-micro", None, model_cache, lambda *_: None)
    adapted = lora.attach(loader.load(found.path, COMPUTE.device).model, make_task().lora, seed=0)
    entries, data = codec.encode("fp32", lora.read_adapter(adapted))
    frame = pack(Adapter(version=0, codec="fp32", tensors=entries), data)
    ref = BaseRef(name=found.name, kind=found.kind, digest=found.digest)
    # As on a worker's machine: by digest.
    cache = tmp_path_factory.mktemp("worker-cache")
    installed = cache / "models" / found.digest
    installed.parent.mkdir()
    installed.symlink_to(found.path)
    return Model(found.path, cache, ref, frame)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short rhythms and one thread: the order of things is the same."""
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.05)
    monkeypatch.setattr(publisher, "POLL_S", 0.02)
    monkeypatch.setattr(service, "TAKE_S", 0.05)
    monkeypatch.setattr(service, "RETRY_S", 0.05)
    monkeypatch.setattr(task_runner, "LOCK_S", 0.05)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def info(status: str = "running", max_staleness: int = 20) -> bytes:
    counts = (
        "version", "total_versions", "phase", "clients", "buffered", "buffer_size", "open_tasks",
        "accepted", "rejected",
    )  # fmt: skip
    fields = dict.fromkeys(counts, 0) | {"started_at": 0.0, "updated_at": 0.0, "phases": ["sft"]}
    fields |= {"run": RUN, "name": NAME, "status": status, "max_staleness": max_staleness}
    return pack(RunInfo.model_validate(fields))


@dataclass
class Hall:
    """One run's broker and store, the coordinator's side of both, and the workers' directories."""

    root: Path
    model: Model
    server: EmbeddedServer = field(default_factory=EmbeddedServer)
    stores: EmbeddedStore = field(default_factory=EmbeddedStore)
    topology: Topology = field(default_factory=lambda: Topology(RUN))
    events: list[tuple[WorkerEventKind, str]] = field(default_factory=list)

    def open(self) -> None:
        """The coordinator has begun."""
        self.store: Store = self.stores.connect()
        self.broker = EmbeddedBroker(self.server)
        self.broker.declare(self.topology)
        self.updates = self.broker.consume_updates(self.topology, [LOCAL], 100)
        self.store.put_blob(RUN, self.model.frame)
        self.store.set_version(RUN, 0)
        self.store.set_info(RUN, info())
        self.store.set_run(NAME, RUN)
        data = self.root / "clients"
        if not data.exists():
            data.mkdir()
            for number in range(2):
                rows = tuple(make_instructions(number, 24))
                write(data / f"client_{number}_sft.jsonl", rows)

    def issue(self, task_id: str, **changed: Any) -> TrainTask:
        task = self.model.task(task_id, **changed)
        self.broker.publish_task(self.topology, LOCAL, Message(pack(task)))
        return task

    def settle(self, task_id: str, state: str = "accepted", reason: str = "") -> None:
        fields = {"task_id": task_id, "attempt": 1, "state": state, "reason": reason}
        self.store.put_receipt(RUN, "local", Receipt.model_validate(fields))

    def received(self) -> bytes:
        """The next message of a worker; of an update, its frame."""
        delivery = self.updates.receive(60)
        assert delivery is not None, f"nothing came; {self.events}"
        self.updates.ack(delivery)
        if "chunk_index" not in delivery.message.headers:
            return delivery.message.body
        return join_chunks([parse_chunk(delivery.message)])

    def complaint(self) -> str:
        """Why a worker handed a message of its task queue back."""
        delivery = self.updates.receive(60)
        assert delivery is not None, f"nothing came; {self.events}"
        self.updates.ack(delivery)
        return str(delivery.message.headers[DEAD_REASON])

    def update(self) -> Update:
        return unpack(Update, self.received())[0]

    def nothing_left(self) -> None:
        assert self.updates.receive(0) is None
        assert self.broker.depths(self.topology)[self.topology.task_queue(LOCAL)].messages == 0

    @property
    def settings(self) -> WorkerSettings:
        return WorkerSettings(
            name=NAME, site=LOCAL, data=self.root / "clients", state=self.root / "state",
            cache=self.model.cache, host="host", software="test", compute=COMPUTE,
        )  # fmt: skip

    def worker(
        self,
        settings: WorkerSettings | None = None,
        broker: EmbeddedBroker | None = None,
        on_step: Callable[[TrainTask, StepReport], None] = lambda task, report: None,
        on_progress: ProgressCallback = lambda message, fraction: None,
    ) -> Worker:
        connections = Connections(
            broker or EmbeddedBroker(self.server), self.stores.connect(), self.stores.connect()
        )
        callbacks = WorkerCallbacks(
            on_event=lambda kind, text: self.events.append((kind, text)),
            on_progress=on_progress,
            on_step=on_step,
        )
        return start_worker(settings or self.settings, RUN, connections, time.time, callbacks)

    def finish(self) -> None:
        self.store.set_info(RUN, info("finished"))

    @contextmanager
    def serving(self, worker: Worker) -> Iterator[Future[WorkerSummary]]:
        """A worker at work; at the end of the block the run is over, and so is the worker."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(worker.serve, over, over)
            try:
                yield future
                self.finish()
                future.result(60)
            finally:
                over.set()

    def says(self, kind: str) -> str:
        """Wait until a worker tells something of a kind."""
        return eventually(kind, lambda: next((t for k, t in self.events if k == kind), ""))

    def kept(self, *path: str) -> list[str]:
        """Names in a folder of the state directory, without locks."""
        folder = self.root.joinpath("state", RUN, *path)
        return sorted(p.name for p in folder.iterdir() if p.name != "lock")


@pytest.fixture
def hall(tmp_path: Path, model: Model) -> Iterator[Hall]:
    hall = Hall(tmp_path, model)
    hall.open()
    yield hall
    hall.stores.close()


# The ordinary way


def test_a_task_becomes_an_update_and_its_receipt_removes_it(hall: Hall) -> None:
    hall.issue("t1")
    with hall.serving(hall.worker()) as serving:
        update = hall.update()
        assert (update.task_id, update.attempt, update.client_id) == ("t1", 1, "client_0")
        assert update.worker_id == "host-0"
        assert hall.kept("slots", "0", "updates") == ["t1.1"]
        hall.settle("t1")
        assert hall.says("accepted") == "update t1.1 accepted"
    served = serving.result()
    assert (served.trained, served.settled, served.waiting) == (1, 1, 0)
    assert "finished" in served.reason
    assert hall.kept("slots", "0") == ["updates"]
    assert hall.kept("slots", "0", "updates") == []
    hall.nothing_left()


def test_a_rejected_update_is_let_go_and_the_reason_is_told(hall: Hall) -> None:
    hall.issue("t1")
    with hall.serving(hall.worker()):
        hall.update()
        hall.settle("t1", "rejected", "staleness 30 is over the limit of 20")
        assert "staleness 30" in hall.says("rejected")
    assert hall.kept("slots", "0", "updates") == []


def test_a_task_that_is_delivered_again_is_not_trained_again(hall: Hall) -> None:
    steps: list[str] = []
    for _ in range(2):
        hall.issue("t1")
    hall.issue("t1", attempt=2)
    hall.issue("t2", client_id="client_1")
    worker = hall.worker(on_step=lambda task, step: steps.append(task.task_id))
    with hall.serving(worker):
        assert [hall.update().task_id, hall.update().task_id] == ["t1", "t2"]
        hall.settle("t1")
        hall.issue("t1", attempt=3)  # after the receipt as well
        hall.issue("t3")
        assert hall.update().task_id == "t3"
    assert steps == ["t1", "t1", "t2", "t2", "t3", "t3"]
    hall.nothing_left()


def test_a_heartbeat_names_the_task_while_it_is_trained(hall: Hall) -> None:
    hall.issue("t1", steps=10**5)
    with hall.serving(hall.worker()):
        beat = eventually(
            "training", lambda: [b for b in hall.store.heartbeats(RUN) if b.progress > 0]
        )[0]
        assert (beat.task_id, beat.client_id, beat.state) == ("t1", "client_0", "training")
        assert beat.clients == ("client_0", "client_1")
        hall.settle("t1")
    assert hall.store.heartbeats(RUN) == ()  # it has said goodbye


# Killed


class KilledAt(EmbeddedBroker):
    """A broker in whose use the process dies: at the ack of a task, before or after a publish."""

    def __init__(self, server: EmbeddedServer, point: str) -> None:
        super().__init__(server)
        self._point = point

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        task = super().take_task(topology, site, timeout)
        if task is not None and self._point == "before the ack":
            task.ack = die  # type: ignore[attr-defined]
        return task

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        if self._point == "trained, not sent":
            die()
        super().publish_update(topology, site, message)
        if self._point == "sent, no receipt":
            die()


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_worker(root: Path, model: Model, point: str) -> None:
    """A worker of a process of its own, from the beginning to its death."""
    torch.set_num_threads(1)
    hall = Hall(root, model)
    hall.open()
    hall.issue("t1")
    on_step = die if point == "in training" else lambda *_: None
    worker = hall.worker(broker=KilledAt(hall.server, point), on_step=on_step)
    worker.serve(threading.Event(), threading.Event())


@pytest.mark.parametrize(
    ("point", "kept", "trains"),
    [
        ("before the ack", ["task", "updates"], 2),
        ("in training", ["task", "updates"], 2),
        ("trained, not sent", ["updates"], 0),
        ("sent, no receipt", ["updates"], 0),
    ],
)
def test_a_killed_worker_goes_on_where_it_was(
    hall: Hall, point: str, kept: list[str], trains: int
) -> None:
    assert forked(killed_worker, hall.root, hall.model, point) == -signal.SIGKILL
    assert set(hall.kept("slots", "0")) >= set(kept)
    if point == "before the ack":
        hall.issue("t1")  # what the broker does with a task that was not acked
    steps: list[int] = []
    with hall.serving(hall.worker(on_step=lambda task, step: steps.append(step.step))) as serving:
        update = hall.update()
        assert (update.task_id, update.attempt) == ("t1", 1)
        eventually("the task is let go", lambda: "task" not in hall.kept("slots", "0"))
        hall.settle("t1")
        hall.says("accepted")
        eventually("the queue is empty", lambda: depth(hall) == 0)
    assert len(steps) == trains
    assert serving.result().waiting == 0
    hall.nothing_left()


def depth(hall: Hall) -> int:
    return hall.broker.depths(hall.topology)[hall.topology.task_queue(LOCAL)].messages


def test_a_stopped_worker_leaves_its_task_for_the_next_start(hall: Hall) -> None:
    hall.issue("t1", steps=10**5)
    stop = threading.Event()
    served = hall.worker(on_step=lambda *_: stop.set()).serve(stop, stop)
    assert (served.reason, served.abandoned, served.trained) == ("stopped", 1, 0)
    left = claim_slot(hall.settings.state, RUN)
    task = left.task()
    assert task is not None and task.task_id == "t1"
    left.release()


# Refused, unwanted


def test_a_task_of_a_client_whose_rows_are_elsewhere_is_refused_with_the_reason(hall: Hall) -> None:
    hall.issue("t1", client_id="client_9", attempt=2)
    with hall.serving(hall.worker()):
        refusal, _ = unpack(TaskRefusal, hall.received())
    assert (refusal.task_id, refusal.attempt, refusal.client_id) == ("t1", 2, "client_9")
    assert "no rows of client_9" in refusal.reason
    assert hall.kept("slots", "0") == ["updates"]


def test_a_worker_that_refuses_three_tasks_in_a_row_ends_with_the_reason(hall: Hall) -> None:
    for name in ("t1", "t2", "t3", "t4"):
        hall.issue(name, client_id="client_9")
    with pytest.raises(DataError, match="no rows of client_9"):
        hall.worker().serve(threading.Event(), threading.Event())
    assert [unpack(TaskRefusal, hall.received())[0].task_id for _ in range(3)] == ["t1", "t2", "t3"]


def test_training_that_diverges_is_refused_and_not_sent(hall: Hall) -> None:
    hall.issue("t1", lr=10.0, steps=50, max_grad_norm=1e30)
    hall.issue("t2")
    with hall.serving(hall.worker()):
        first = hall.received()
        assert kind_of(first) in (
            "TaskRefusal",
            "Update",
        )  # a huge rate need not diverge everywhere
        assert hall.update().task_id == "t2"


def test_a_task_that_is_settled_meanwhile_is_abandoned(hall: Hall) -> None:
    hall.issue("t1", steps=10**5)
    with hall.serving(hall.worker()) as serving:
        eventually("training", lambda: [b for b in hall.store.heartbeats(RUN) if b.progress > 0])
        hall.settle("t1", "rejected", "phase over")
        assert hall.says("abandoned") == "t1: settled already: phase over"
    assert (serving.result().abandoned, serving.result().trained) == (1, 0)
    assert hall.kept("slots", "0") == ["updates"]


def test_a_task_that_grew_too_stale_is_abandoned(hall: Hall) -> None:
    hall.store.set_info(RUN, info(max_staleness=2))
    hall.issue("t1", steps=10**5)
    with hall.serving(hall.worker()):
        eventually("training", lambda: [b for b in hall.store.heartbeats(RUN) if b.progress > 0])
        hall.store.set_version(RUN, 3)
        assert "staleness over 2" in hall.says("abandoned")
    hall.nothing_left()


def test_a_task_whose_version_is_gone_is_abandoned(hall: Hall) -> None:
    digest = codec.digest(b"gone")
    hall.issue("t1", adapter={"sha256": digest, "nbytes": 4})
    with hall.serving(hall.worker()):
        assert hall.says("abandoned") == "t1: version 0 is gone"


def test_a_store_that_came_back_empty_is_waited_for(hall: Hall) -> None:
    hall.store._redis.flushall()
    hall.issue("t1")
    with hall.serving(hall.worker()):
        assert "is empty" in hall.says("waiting")
        hall.store.put_blob(RUN, hall.model.frame)
        hall.store.set_version(RUN, 0)
        assert hall.update().task_id == "t1"


def test_what_is_no_task_of_this_run_is_handed_back_and_the_next_one_is_trained(
    hall: Hall,
) -> None:
    hall.broker.publish_task(hall.topology, LOCAL, Message(b"train this"))
    hall.issue("t0", run="another")
    hall.issue("t1")
    with hall.serving(hall.worker()):
        reasons = [hall.complaint() for _ in range(2)]
        assert "frame" in reasons[0]
        assert reasons[1] == "a task of run another"
        assert hall.update().task_id == "t1"


# Base model, several workers, the run's end


def test_a_worker_that_lacks_the_base_model_fetches_it_from_the_coordinator(hall: Hall) -> None:
    coordinator = BaseModelServer(hall.store, RUN, hall.model.path, hall.model.ref.digest)
    elsewhere = hall.root / "elsewhere"
    hall.issue("t1")
    told: list[tuple[str, float]] = []
    settings = replace(hall.settings, cache=elsewhere)
    with hall.serving(hall.worker(settings, on_progress=lambda *report: told.append(report))):
        beats = eventually("asked for", lambda: [b for b in hall.store.heartbeats(RUN) if b.wants])
        assert beats[0].wants == hall.model.ref.digest
        assert not (elsewhere / "models").exists()
        coordinator.answer(beats)
        assert hall.update().task_id == "t1"
    assert find_installed(hall.model.ref.digest, elsewhere) is not None
    assert {what for what, _ in told} == {"fetching the base model"}
    fractions = [fraction for _, fraction in told]
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions == sorted(fractions) and len(set(fractions)) > 2  # file by file


def test_a_worker_that_cannot_reach_the_hub_fetches_the_model_from_the_coordinator(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise ModelError("the hub does not answer")

    monkeypatch.setattr(hub, "download", unreachable)
    ref = hall.model.ref.model_copy(update={"kind": "hub", "name": "org/model"})
    hall.issue("t1", base=ref.fields())
    settings = replace(hall.settings, cache=hall.root / "elsewhere")
    with hall.serving(hall.worker(settings)):
        beats = eventually("asked for", lambda: [b for b in hall.store.heartbeats(RUN) if b.wants])
        BaseModelServer(hall.store, RUN, hall.model.path, hall.model.ref.digest).answer(beats)
        assert hall.update().task_id == "t1"


def test_workers_share_a_state_directory_and_never_a_slot(hall: Hall) -> None:
    first, second = hall.worker(), hall.worker()
    assert (first.worker_id, second.worker_id) == ("host-0", "host-1")
    hall.issue("t1", client_id="client_0")
    hall.issue("t2", client_id="client_1")
    with hall.serving(first), hall.serving(second):
        assert {hall.update().task_id, hall.update().task_id} == {"t1", "t2"}
        for task_id in ("t1", "t2"):
            hall.settle(task_id)
    third = hall.worker()
    assert third.worker_id == "host-0"
    over = threading.Event()
    over.set()
    third.serve(over, over)


def test_a_worker_takes_its_part_of_the_cores_before_every_task(hall: Hall) -> None:
    settings = replace(hall.settings, compute=replace(COMPUTE, threads=4))
    place = hall.settings.state / "another-run" / "slots" / "0"
    place.mkdir(parents=True)
    steps: list[int] = []
    on_step = lambda task, step: steps.append(torch.get_num_threads())  # noqa: E731
    with hall.serving(hall.worker(settings, on_step=on_step)):
        for task_id, pid in (("t1", "none"), ("t2", os.getppid()), ("t3", "none")):
            (place / "pid").write_text(str(pid))
            hall.issue(task_id)
            assert hall.update().task_id == task_id
            if task_id == "t2":
                [beat] = hall.store.heartbeats(RUN)
                assert beat.device == "cpu, 2 threads"
    assert steps == [4, 4, 2, 2, 4, 4]


def test_a_client_that_another_process_trains_is_waited_for(hall: Hall) -> None:
    hall.issue("t1")
    with hall.serving(hall.worker()):
        with client_lock(hall.settings.state, RUN, "client_0", 10.0):
            assert "client_0" in hall.says("waiting")
            assert hall.updates.receive(0) is None
        assert hall.update().task_id == "t1"


def test_an_update_that_was_settled_while_the_worker_was_away_is_not_sent(hall: Hall) -> None:
    assert forked(killed_worker, hall.root, hall.model, "trained, not sent") == -signal.SIGKILL
    hall.settle("t1", "rejected", "phase over")
    with hall.serving(hall.worker()):
        assert "phase over" in hall.says("rejected")
    hall.nothing_left()


def test_a_worker_without_any_rows_says_so_before_it_takes_a_task(hall: Hall) -> None:
    hall.issue("t1")
    with pytest.raises(DataError, match="nowhere") as caught:
        hall.worker(replace(hall.settings, data=hall.root / "nowhere"))
    assert "--data" in caught.value.remedy
    assert depth(hall) == 1


def test_a_worker_ends_when_another_run_takes_the_name(hall: Hall) -> None:
    with hall.serving(hall.worker()) as serving:
        hall.store.set_run(NAME, "run-2")
        assert "another run" in serving.result(60).reason


def test_a_run_that_is_over_is_not_joined(hall: Hall) -> None:
    hall.finish()
    stop = threading.Event()

    def on_event(kind: WorkerEventKind, text: str) -> None:
        hall.events.append((kind, text))
        stop.set()

    assert find_run(hall.store, NAME, stop, on_event) is None
    assert "the last one is finished" in hall.events[0][1]


def test_deleted_queues_are_told_of_unless_the_run_is_over(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DRAIN_S", 0.5)

    def end(task: TrainTask, step: StepReport) -> None:
        if step.step == step.steps:  # the update will find no queue
            if task.task_id == "t2":
                hall.finish()
            hall.broker.delete(hall.topology)

    for task_id in ("t1", "t2"):
        hall.events.clear()
        hall.broker.declare(hall.topology)
        hall.issue(task_id)
        with hall.serving(hall.worker(on_step=end)) as serving:
            hall.says("trained")
            if task_id == "t1":
                assert "does not exist" in hall.says("waiting")
                hall.settle("t1", "rejected")
                hall.says("rejected")
            else:
                assert serving.result(60).waiting == 1
        assert ("waiting" in dict(hall.events)) == (task_id == "t1")
        hall.store.set_info(RUN, info())
