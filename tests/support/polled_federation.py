"""A coordinator on an in-process broker and store, with one fake worker, in virtual time.

One thread: the service polls its consumer, and each poll lets the fake worker act. A crash is an
exception that nothing catches; its successor opens the same run directory, while broker, store and
worker live on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis

from broker.chunks import split_update
from broker.dead_letter import DEAD_REASON
from broker.embedded.broker import EmbeddedBroker, EmbeddedConsumer, EmbeddedServer
from broker.protocol import LOCAL, Consumer, Delivery, Message, Site, Topology
from common.config.config import FederationConfig
from common.config.loader import parse
from common.evaluation.sums import EvaluationSums
from common.protocol import codec
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.evaluations import EvalResult, EvalTask
from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import BlobRef, TrainTask
from common.protocol.tensor_table import make_table
from common.protocol.tensors import Tensors
from common.protocol.updates import Update
from common.protocol.wire import kind_of, pack, unpack
from common.store.store import Store
from coordinator.observer import CoordinatorObserver
from coordinator.samples_source import SamplesSource
from coordinator.scores_source import ScoreSource
from coordinator.service import RunOutcome, Service
from coordinator.sites.credentials import SiteAccess
from coordinator.storage import run
from coordinator.storage.journal import Journal
from coordinator.storage.run import PreparedRun
from tests.support.coordinator_records import SHA, START, prepared_run
from tests.support.virtual_federation import make_stats

CHUNK = 512  # so that an update of some hundred bytes is several chunks
EXAMPLE_TASK = json.dumps(
    {
        "task_id": "t000001", "attempt": 1, "run": "r", "client_id": "client_0", "phase": 0,
        "objective": "sft", "base": {"name": "b", "kind": "local", "digest": SHA},
        "training": {
            "steps": 1, "epochs": 0, "batch_size": 1, "lr": 0.1, "max_grad_norm": 1.0,
            "prox_mu": 0.0, "max_length": 16,
        },
        "base_version": 0, "adapter": {"sha256": SHA, "nbytes": 1}, "lora": {},
        "update_codec": "fp32", "seed": 1, "issued_at": 0.0, "deadline_s": 1.0,
    }
)  # fmt: skip


class Crash(Exception):
    """End of a coordinator's process; nothing catches it."""


def crash_at(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, *, after: bool, calls: Set[int]
) -> None:
    """Let some calls of a function, counted from 0, crash before or after their effect."""
    original, numbers = getattr(where, name), count()

    def crashing(*args: Any, **kwargs: Any) -> Any:
        crash = next(numbers) in calls
        if crash and not after:
            raise Crash
        result = original(*args, **kwargs)
        if crash:
            raise Crash
        return result

    monkeypatch.setattr(where, name, crashing)


def make_config(
    directory: Path,
    *,
    aggregation: Mapping[str, object] | None = None,
    evaluation: Mapping[str, object] | None = None,
    model: Mapping[str, object] | None = None,
    keep_updates: bool = False,
    privacy: Mapping[str, object] | None = None,
    versions: Sequence[int] = (3,),
    **schedule: object,
) -> FederationConfig:
    return parse(
        {
            "aggregation": dict(aggregation or {}),
            "evaluation": dict(evaluation or {}),
            "privacy": dict(privacy or {}),
            "model": dict(model or {}),
            "run": {
                "name": "r",
                "dir": str(directory),
                "keep_versions": 2,
                "keep_updates": keep_updates,
            },
            "data": {"clients": 3},
            "phase": [{"versions": span} for span in versions],
            "schedule": {"concurrency": 3, "buffer_size": 2, **schedule},
            "codec": {"update": "fp32"},
            "samples": {"prompts": 0},
        },
        "test",
    )


def delta(task_id: str) -> Tensors:
    """Return the delta of a trained task: different for every task, equal for its attempts."""
    value = np.float32(int(task_id[1:]) / 1000)
    return {name: np.full(tensor.shape, value) for name, tensor in START.items()}


def update(
    task: TrainTask, worker: str = "w0", data: bytes | None = None, **changed: object
) -> bytes:
    """Return the frame of a flawless update, with other `data`, and the fields `changed`."""
    layout, encoded = codec.encode("fp32", delta(task.task_id))
    data = encoded if data is None else data
    tabled = task.layout is None
    record = Update(
        task_id=task.task_id,
        attempt=task.attempt,
        client_id=task.client_id,
        worker_id=worker,
        phase=task.phase,
        base_version=task.base_version,
        stats=make_stats(),
        codec="fp32",
        layout=None if tabled else layout.digest,
        tensors=make_table("fp32", layout) if tabled else None,
        sha256=codec.digest(data),
    )
    return pack(record.model_copy(update=changed), data)


def answer(task: bytes) -> bytes:
    return update(unpack(TrainTask, task)[0])


def loss_of(tensors: Tensors) -> float:
    """Return a loss that falls as the values rise, as those of the fake worker's updates do."""
    return float(np.exp(-np.mean([tensor.mean() for tensor in tensors.values()])))


def sums_of(tensors: Tensors) -> EvaluationSums:
    """Return sums over 10 rows of 10 tokens."""
    return EvaluationSums(rows=10, tokens=100, bytes=400, loss=100 * loss_of(tensors))


class PolledConsumer(EmbeddedConsumer):
    """Consumer that lets the federation act before each poll, and never waits."""

    act: Callable[[], None]

    def receive(self, timeout: float) -> Delivery | None:
        self.act()
        return super().receive(0)


class PolledBroker(EmbeddedBroker):
    """Connection of the coordinator."""

    def __init__(self, server: EmbeddedServer, act: Callable[[], None]) -> None:
        super().__init__(server)
        self._act = act

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        queues = [topology.update_queue(site) for site in sites]
        consumer = PolledConsumer(self._server, queues, prefetch, topology.dead_queue, self._user)
        consumer.act = self._act
        return consumer


class UnreliableRedis:
    """Redis client that can be switched off."""

    def __init__(self) -> None:
        self.client = fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise redis.ConnectionError("refused")
        return getattr(self.client, name)


class PolledFederation:
    """Everything that outlives a coordinator: broker, store, the run directory and one fake worker.

    Each poll of the coordinator is a turn: `now` advances by a quarter of a second, `on_turn` is
    called, and the worker takes and answers tasks.
    """

    def __init__(
        self,
        directory: Path,
        seed: int = 0,
        existing: FederationConfig | None = None,
        prepare: Callable[[Path], PreparedRun] = prepared_run,
        **settings: Any,
    ) -> None:
        """Create the run directory, or take that of an `existing` run.

        Args:
            prepare: Returns the start of a new run.
            settings: Those of `make_config`, for a new run.
        """
        self.config = existing or make_config(directory, **settings)
        if existing is None:
            run.create_run(self.config, prepare, 0.0)
        self.directory = self.config.run.path
        self.server, self.redis = EmbeddedServer(), UnreliableRedis()
        self.store = Store(self.redis, "test")
        self.site_broker = EmbeddedBroker(self.server)
        self.topology = Topology(self._meta()["run_id"], (LOCAL,))
        self.now, self.turns, self.events = 0.0, 0, list[Event]()
        self.stop = threading.Event()
        self.on_turn: Callable[[], None] = lambda: None
        self.on_event: Callable[[Event], None] = lambda event: None
        self.worker_is_absent = False
        self.answer: Callable[[bytes], bytes] = answer  # task → update, both as frames
        self.metrics: CoordinatorObserver | None = None
        self.access: SiteAccess | None = None
        self.samples: SamplesSource | None = None
        self.scores: ScoreSource | None = None
        self.evaluated: list[EvalTask] = []
        self._random = Random(seed)
        self._pending: dict[str, tuple[bytes, float]] = {}

    def _meta(self) -> dict[str, str]:
        journal = Journal.open(self.directory / "run.db")
        try:
            return journal.meta()
        finally:
            journal.close()

    def open(self) -> run.Run:
        return run.open_run(self.config, lambda _: Path("base"))

    def service(self, opened: run.Run | None = None) -> Service:
        return Service(
            opened or self.open(),
            PolledBroker(self.server, self._act),
            self.store,
            lambda: self.now,
            users={"local": "local"},
            on_event=self._on_event,
            metrics=self.metrics,
            access=self.access,
            samples=self.samples,
            scores=self.scores,
        )

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def serve(self) -> RunOutcome:
        return self.service().serve(self.stop)

    def serve_through_crashes(self) -> tuple[RunOutcome, int]:
        crashes = 0
        while True:
            try:
                return self.serve(), crashes
            except Crash:
                crashes += 1

    def publish(self, frame: bytes, update_id: str, order: Random | None = None) -> None:
        messages = list(split_update(update_id, frame, CHUNK))
        if order:
            messages *= 2
            order.shuffle(messages)
        for message in messages:
            self.site_broker.publish_update(self.topology, LOCAL, message)

    def once_issued(self, act: Callable[[], None]) -> None:
        """Call `act` when the first task is on its queue, before the worker takes it."""
        waiting = [act]

        def act_once() -> None:
            if waiting and any(event.kind == "issued" for event in self.events):
                waiting.pop()()

        self.on_turn = act_once

    def _act(self) -> None:
        self.now += 0.25
        self.turns += 1
        assert self.turns < 5000, "the run does not end"
        self.on_turn()
        if self.redis.down:
            return
        if self.worker_is_absent:
            self.store.remove_heartbeat(self.topology.run, "local", "w0")
            return
        heartbeat = Heartbeat(worker_id="w0", site="local", state="waiting")
        self.store.put_heartbeat(self.topology.run, heartbeat)
        taken = self.site_broker.take_task(self.topology, LOCAL, 0)
        if taken is not None:
            body = taken.message.body
            if kind_of(body) == "EvalTask":
                result = self.evaluate(unpack(EvalTask, body)[0])
                answered, frame = f"{result.task_id}.{result.attempt}", pack(result)
            else:
                task, _ = unpack(TrainTask, body)
                answered, frame = f"{task.task_id}.{task.attempt}", self.answer(body)
            self._pending.setdefault(answered, (frame, -1e9))
            taken.ack()
        self._republish()

    def evaluate(self, task: EvalTask) -> EvalResult:
        """Evaluate what a task names; every adapter has to be in the store."""
        self.evaluated.append(task)
        candidate = task.candidate and sums_of(self.fetch(task.candidate))
        return EvalResult(
            task_id=task.task_id,
            attempt=task.attempt,
            client_id=task.client_id,
            worker_id="w0",
            version=task.version,
            sums=sums_of(self.fetch(task.adapter)),
            candidate_sums=candidate,
            seconds=0.5,
            nbytes=task.candidate.nbytes if task.candidate else 0,
        )

    def fetch(self, ref: BlobRef) -> Tensors:
        frame = self.store.get_blob(self.topology.run, ref.sha256, ref.nbytes)
        assert frame is not None, "the adapter is gone"
        return unpack_adapter(frame)[1]

    def _republish(self) -> None:
        for update_id, (frame, at) in list(self._pending.items()):
            if self.store.get_receipt(self.topology.run, "local", update_id.partition(".")[0]):
                del self._pending[update_id]
            elif self.now - at > 30:
                self.publish(frame, update_id, self._random)
                self._pending[update_id] = (frame, self.now)

    def dead_letters(self) -> list[Message]:
        class Dead(Topology):
            def task_queue(self, site: Site) -> str:
                return self.dead_queue

        letters = []
        self.site_broker.declare(self.topology)
        while taken := self.site_broker.take_task(Dead(self.topology.run), LOCAL, 0):
            letters.append(taken.message)
            taken.ack()
        return letters

    def dead_letter_reasons(self) -> list[str]:
        return [str(letter.headers[DEAD_REASON]) for letter in self.dead_letters()]


def check_complete(federation: PolledFederation, outcome: RunOutcome) -> None:
    """Check that every accepted update was applied once, and nothing was left behind."""
    assert (outcome.complete, outcome.version) == (True, 3)
    journal = Journal.open(federation.directory / "run.db")
    summaries = journal.versions()
    assert [summary.version for summary in summaries] == [0, 1, 2, 3]
    applied = [u for summary in summaries for u in summary.updates]
    names = [u.task_id for u in applied]
    assert len(names) == len(set(names)) == journal.receipt_counts()["accepted"] == 6
    assert journal.unapplied_uploads() == set() and journal.outbox() == []
    opened = federation.open()
    expected = {name: tensor.copy() for name, tensor in START.items()}
    for u in applied:
        for name in expected:
            expected[name] += np.float32(u.coefficient) * delta(u.task_id)[name]
    found = opened.versions.read(3)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert journal.unfinished_uploads() == {} and not list(
        (federation.directory / "spool").iterdir()
    )
    assert (
        sorted(path.name for path in (federation.directory / "versions").iterdir())[-1] == "000003"
    )
    assert not list((federation.directory / "versions").glob(".*"))
    check_kept_updates(federation, names)
    check_versions(federation)
    assert read_field(federation, "progress.jsonl", "version") == [0, 1, 2, 3]
    assert read_field(federation, "client_metrics.jsonl", "task_id") == names
    for name in names:
        receipt = federation.store.get_receipt(federation.topology.run, "local", name)
        assert receipt is not None and receipt.state == "accepted"
    journal.close()
    opened.journal.close()


def check_kept_updates(federation: PolledFederation, applied: list[str]) -> None:
    """Check that the updates that were applied are on the disk as their worker sent them."""
    directory, kept = federation.directory / "updates", federation.config.run.keep_updates
    files = {path.name: path.read_bytes() for path in directory.glob("*")}
    assert [name.partition(".")[0] for name in sorted(files)] == (sorted(applied) if kept else [])
    journal = Journal.open(federation.directory / "run.db")
    rows = {file: upload for upload, file in journal.kept_updates().items()}
    assert {name: f"local.{codec.digest(frame)}" for name, frame in files.items()} == rows
    journal.close()


def check_versions(federation: PolledFederation) -> None:
    """Check that directories match their rows, and that the newest version has one."""
    opened = federation.open()
    rows = opened.journal.version_digests()
    present = [int(p.name) for p in (federation.directory / "versions").glob("[0-9]*")]
    assert max(rows) in present
    for version in present:
        assert codec.digest(opened.versions.frame(version)) == rows[version]
    opened.journal.close()


def read_field(federation: PolledFederation, file: str, key: str) -> list[object]:
    """Return one field of every line of a JSON lines file in the run directory."""
    text = (federation.directory / file).read_text(encoding="utf-8")
    return [json.loads(line)[key] for line in text.splitlines()]
