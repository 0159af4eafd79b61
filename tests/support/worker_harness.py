"""A worker with a broker and a store in this process, and the coordinator's side of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from broker.chunks import parse_chunk
from broker.dead_letter import DEAD_REASON
from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL, Message, Topology
from common.protocol import codec
from common.protocol.adapter_frame import pack_adapter
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BaseRef, BlobRef, Receipt, TrainTask
from common.protocol.updates import Update
from common.protocol.versions import CurrentModel
from common.protocol.wire import pack, unpack
from common.store.embedded import EmbeddedStore
from common.store.store import Store
from common.store.view import RunInfo
from learning.data.rows import write
from learning.models import base, loader, lora
from learning.progress import ProgressCallback
from learning.synthetic.instructions import make_instructions
from learning.training.device import Compute
from learning.training.loop import StepReport
from tests.support.chunks import join_chunks
from tests.support.processes import eventually
from tests.support.worker_records import task as make_task
from worker import heartbeat, publisher, service, task_runner
from worker.events import WorkerEventKind
from worker.factory import Connections, WorkerCallbacks, WorkerSettings, start_worker
from worker.service import Worker, WorkerSummary

RUN, NAME = "run-1", "small"
COMPUTE = Compute(torch.device("cpu"), threads=1, autocast=False)


@dataclass(frozen=True)
class Model:
    """Base model and version 0, made once."""

    path: Path
    cache: Path
    ref: BaseRef
    frame: bytes
    layout: str  # digest

    def task(self, task_id: str, **changed: Any) -> TrainTask:
        blob = BlobRef(sha256=codec.digest(self.frame), nbytes=len(self.frame))
        fields = {"base": self.ref.fields(), "adapter": blob.fields(), "layout": self.layout}
        return make_task(task_id, **(fields | changed))


def make_model(cache: Path, model_cache: Path) -> Model:
    """Return a tiny model with version 0, in a folder that is a worker's cache from now on."""
    found = base.resolve("offline:gpt2-micro", None, model_cache, lambda *_: None)
    adapted = lora.attach(loader.load(found.path, COMPUTE.device).model, make_task().lora, seed=0)
    adapter = lora.read_adapter(adapted)
    frame, layout = pack_adapter(0, "fp32", adapter), TensorLayout.of(adapter).digest
    ref = BaseRef(name=found.name, kind=found.kind, digest=found.digest)
    installed = cache / "models" / found.digest  # a worker's cache holds models by digest
    installed.parent.mkdir()
    installed.symlink_to(found.path)
    return Model(found.path, cache, ref, frame, layout)


@contextmanager
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let workers poll more often and use one thread; the order of events stays the same."""
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
class WorkerHarness:
    """Broker and store of a run, the coordinator's side of both, and the workers' directories."""

    root: Path
    model: Model
    server: EmbeddedServer = field(default_factory=EmbeddedServer)
    stores: EmbeddedStore = field(default_factory=EmbeddedStore)
    topology: Topology = field(default_factory=lambda: Topology(RUN))
    events: list[tuple[WorkerEventKind, str]] = field(default_factory=list)

    def start_run(self) -> None:
        """Publish version 0 and announce the run, as its coordinator does."""
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

    def put_receipt(self, task_id: str, state: str = "accepted", reason: str = "") -> None:
        fields = {"task_id": task_id, "attempt": 1, "state": state, "reason": reason}
        self.store.put_receipt(RUN, "local", Receipt.model_validate(fields))

    def next_message(self) -> bytes:
        """Return the body of the next message of a worker, or the frame of its next update."""
        delivery = self.updates.receive(60)
        assert delivery is not None, f"nothing came; {self.events}"
        self.updates.ack(delivery)
        if "chunk_index" not in delivery.message.headers:
            return delivery.message.body
        return join_chunks([parse_chunk(delivery.message)])

    def next_rejection(self) -> str:
        """Return why a worker rejected a message of its task queue."""
        delivery = self.updates.receive(60)
        assert delivery is not None, f"nothing came; {self.events}"
        self.updates.ack(delivery)
        return str(delivery.message.headers[DEAD_REASON])

    def next_update(self) -> Update:
        return unpack(Update, self.next_message())[0]

    def assert_queues_empty(self) -> None:
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

    def current_model(self) -> CurrentModel:
        task = self.model.task("t0")
        return CurrentModel(
            run=RUN, version=0, phase=0, adapter=task.adapter, base=task.base, lora=task.lora,
            objective="sft", max_length=128,
        )  # fmt: skip

    def finish_run(self) -> None:
        self.store.set_info(RUN, info("finished"))

    @contextmanager
    def serving(self, worker: Worker) -> Iterator[Future[WorkerSummary]]:
        """Serve a worker while the block runs; then the run ends, and the worker with it."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(worker.serve, over, over)
            try:
                yield future
                self.finish_run()
                future.result(60)
            finally:
                over.set()

    def wait_for_event(self, kind: str) -> str:
        """Wait for an event of a kind and return its text."""
        return eventually(kind, lambda: next((t for k, t in self.events if k == kind), ""))

    def file_names(self, *path: str) -> list[str]:
        """Return the names in a folder of the state directory, without locks."""
        folder = self.root.joinpath("state", RUN, *path)
        return sorted(p.name for p in folder.iterdir() if p.name != "lock")
