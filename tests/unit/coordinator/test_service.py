"""The live service on an in-process broker and store: crashes, hostile messages, a lost store.

One thread and virtual time: the service polls its consumer, and each poll lets the fake worker act.
A crash is an exception that nothing catches; its successor opens the same run directory, while
broker, store and worker live on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis

from broker.chunks import parse_chunk, split_update
from broker.dead_letter import DEAD_REASON
from broker.embedded.broker import EmbeddedBroker, EmbeddedConsumer, EmbeddedServer
from broker.protocol import LOCAL, Consumer, Delivery, Message, Site, Topology
from common.config.config import FederationConfig
from common.config.loader import parse
from common.errors import BrokerError, FencedError, StoreError
from common.protocol import codec
from common.protocol.feed import Event
from common.protocol.heartbeat import Heartbeat
from common.protocol.kinds import EventKind
from common.protocol.tasks import TaskRefusal, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import Update
from common.protocol.versions import SampleAnswer
from common.protocol.wire import pack, unpack
from common.store import view
from common.store.store import Store
from coordinator.core.events import LogEvent
from coordinator.ingest import ingest
from coordinator.observer import Observer
from coordinator.publish import store_publisher
from coordinator.samples_source import SamplesSource
from coordinator.service import RunOutcome, Service
from coordinator.storage import retention, run
from coordinator.storage.journal import Journal
from coordinator.storage.jsonl import JsonlFiles
from coordinator.storage.spool import Spool
from coordinator.storage.versions import Versions
from tests.support.coordinator_records import SHA, START, prepared_run
from tests.support.virtual_federation import stats

CHUNK = 512  # so that an update of some hundred bytes is several chunks


class Crash(Exception):
    """The process is gone."""


def config(directory: Path, **schedule: object) -> FederationConfig:
    return parse(
        {
            "run": {"name": "r", "dir": str(directory), "keep_versions": 2},
            "data": {"clients": 3},
            "phase": [{"versions": 3}],
            "schedule": {"concurrency": 3, "buffer_size": 2, **schedule},
            "codec": {"update": "fp32"},
            "samples": {"prompts": 0},
        },
        "test",
    )


def delta(task_id: str) -> Tensors:
    """What training a task gives: another value for every task, the same at every attempt."""
    value = np.float32(int(task_id[1:]) / 1000)
    return {name: np.full(tensor.shape, value) for name, tensor in START.items()}


def update(task: TrainTask, worker: str = "w0", **changed: object) -> bytes:
    """The frame of a flawless update, with changes."""
    entries, data = codec.encode("fp32", delta(task.task_id))
    record = Update(
        task_id=task.task_id,
        attempt=task.attempt,
        client_id=task.client_id,
        worker_id=worker,
        phase=task.phase,
        base_version=task.base_version,
        stats=stats(),
        codec="fp32",
        tensors=entries,
        sha256=codec.digest(data),
    )
    return pack(record.model_copy(update=changed), data)


class PolledConsumer(EmbeddedConsumer):
    """Lets the world act before each poll, and never waits."""

    act: Callable[[], None]

    def receive(self, timeout: float) -> Delivery | None:
        self.act()
        return super().receive(0)


class PolledBroker(EmbeddedBroker):
    """The coordinator's connection."""

    def __init__(self, server: EmbeddedServer, act: Callable[[], None]) -> None:
        super().__init__(server)
        self._act = act

    def consume_updates(self, topology: Topology, sites: Iterable[Site], prefetch: int) -> Consumer:
        queues = [topology.update_queue(site) for site in sites]
        consumer = PolledConsumer(self._server, queues, prefetch, topology.dead_queue, self._user)
        consumer.act = self._act
        return consumer


class Unreliable:
    """A Redis client that can be switched off."""

    def __init__(self) -> None:
        self.client = fakeredis.FakeStrictRedis(server=fakeredis.FakeServer())
        self.down = False

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise redis.ConnectionError("refused")
        return getattr(self.client, name)


class World:
    """What outlives a coordinator: broker, store, the run directory and one worker."""

    def __init__(self, directory: Path, seed: int = 0, **schedule: object) -> None:
        self.config = config(directory, **schedule)
        run.create_run(self.config, prepared_run, 0.0)
        self.directory = self.config.run.path
        self.server, self.redis = EmbeddedServer(), Unreliable()
        self.store = Store(self.redis, "test")
        self.mine = EmbeddedBroker(self.server)
        self.topology = Topology(self._meta()["run_id"], (LOCAL,))
        self.now, self.turns, self.events = 0.0, 0, list[Event]()
        self.stop = threading.Event()
        self.each_turn: Callable[[], None] = lambda: None
        self.absent = False  # the worker is not there
        self.metrics: Observer | None = None
        self.samples: SamplesSource | None = None
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
            on_event=self.events.append,
            metrics=self.metrics,
            samples=self.samples,
        )

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
            self.mine.publish_update(self.topology, LOCAL, message)

    def once_issued(self, act: Callable[[], None]) -> None:
        """Do it when the first task is on its queue, before the worker takes it."""
        waiting = [act]

        def look() -> None:
            if waiting and any(event.kind == "issued" for event in self.events):
                waiting.pop()()

        self.each_turn = look

    def _act(self) -> None:
        self.now += 0.25
        self.turns += 1
        assert self.turns < 5000, "the run does not end"
        self.each_turn()
        if self.redis.down:
            return
        if self.absent:
            self.store.remove_heartbeat(self.topology.run, "local", "w0")
            return
        heartbeat = Heartbeat(worker_id="w0", site="local", state="waiting")
        self.store.put_heartbeat(self.topology.run, heartbeat)
        taken = self.mine.take_task(self.topology, LOCAL, 0)
        if taken is not None:
            task, _ = unpack(TrainTask, taken.message.body)
            self._pending.setdefault(f"{task.task_id}.{task.attempt}", (update(task), -1e9))
            taken.ack()
        self._republish()

    def _republish(self) -> None:
        for update_id, (frame, at) in list(self._pending.items()):
            if self.store.get_receipt(self.topology.run, "local", update_id.partition(".")[0]):
                del self._pending[update_id]
            elif self.now - at > 30:
                self.publish(frame, update_id, self._random)
                self._pending[update_id] = (frame, self.now)

    def dead(self) -> list[Message]:
        class Dead(Topology):
            def task_queue(self, site: Site) -> str:
                return self.dead_queue

        letters = []
        self.mine.declare(self.topology)
        while taken := self.mine.take_task(Dead(self.topology.run), LOCAL, 0):
            letters.append(taken.message)
            taken.ack()
        return letters

    def reasons(self) -> list[str]:
        return [str(letter.headers[DEAD_REASON]) for letter in self.dead()]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def check_complete(world: World, outcome: RunOutcome) -> None:
    """Every accepted update was applied once, and nothing was left behind."""
    assert (outcome.complete, outcome.version) == (True, 3)
    journal = Journal.open(world.directory / "run.db")
    summaries = journal.versions()
    assert [summary.version for summary in summaries] == [0, 1, 2, 3]
    applied = [u for summary in summaries for u in summary.updates]
    names = [u.task_id for u in applied]
    assert len(names) == len(set(names)) == journal.receipt_counts()["accepted"] == 6
    assert journal.unapplied_uploads() == set() and journal.outbox() == []
    opened = world.open()
    expected = {name: tensor.copy() for name, tensor in START.items()}
    for u in applied:
        for name in expected:
            expected[name] += np.float32(u.coefficient) * delta(u.task_id)[name]
    found = opened.versions.read(3)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert journal.unfinished_uploads() == {} and not list((world.directory / "spool").iterdir())
    assert sorted(path.name for path in (world.directory / "versions").iterdir())[-1] == "000003"
    assert not list((world.directory / "versions").glob(".*"))
    check_versions(world)
    assert lines(world, "progress.jsonl", "version") == [0, 1, 2, 3]
    assert lines(world, "client_metrics.jsonl", "task_id") == names
    for name in names:
        receipt = world.store.get_receipt(world.topology.run, "local", name)
        assert receipt is not None and receipt.state == "accepted"
    journal.close()
    opened.journal.close()


def check_versions(world: World) -> None:
    """Every directory holds what its row says, and the newest version has one."""
    opened = world.open()
    rows = opened.journal.version_digests()
    present = [int(p.name) for p in (world.directory / "versions").glob("[0-9]*")]
    assert max(rows) in present
    for version in present:
        assert codec.digest(opened.versions.frame(version)) == rows[version]
    opened.journal.close()


def lines(world: World, file: str, key: str) -> list[object]:
    text = (world.directory / file).read_text(encoding="utf-8")
    return [json.loads(line)[key] for line in text.splitlines()]


def test_a_run_without_faults_completes(world: World) -> None:
    outcome = world.serve()
    check_complete(world, outcome)
    assert not outcome.was_complete


def test_a_run_that_was_complete_before_is_told_again_and_changes_nothing(world: World) -> None:
    world.serve()
    world.redis.client.flushall()
    outcome = world.serve()
    assert outcome.was_complete
    check_complete(world, outcome)
    info = view.read(world.store, "r").info
    assert info is not None and info.status == "finished"
    assert world.dead() == []
    assert {event.level for event in world.events} == {"info"}


# crashes

POINTS: dict[str, tuple[type, str, bool]] = {
    # name: (class, method, crash after the call instead of before it)
    "chunk delivered": (Spool, "write", False),
    "chunk written": (Spool, "write", True),
    "chunk row": (Journal, "put_chunk", True),
    "before the step's transaction": (Journal, "write", False),
    "inside the transaction, update accepted": (Journal, "_accept", True),
    "inside the transaction, task settled": (Journal, "_settle", True),
    "inside the transaction, version row": (Journal, "_put_version", True),
    "inside the transaction, task issued": (Journal, "_issue", True),
    "before the version is written": (Versions, "_write", False),
    "version written, not made": (Versions, "_write", True),
    "version made durable, before the transaction": (Versions, "stage", True),
    "after the transaction": (Journal, "write", True),
    "after the transaction, before the version gets its number": (Versions, "place", False),
    "version has its number": (Versions, "place", True),
    "before a start sweeps": (Versions, "sweep", False),
    "before the spool is cleaned": (Spool, "drop", False),
    "before versions are retained": (Versions, "retain", False),
    "before the files of lines": (JsonlFiles, "catch_up", False),
    "before the outbox is published": (EmbeddedBroker, "publish_task", False),
    "published, not marked": (Journal, "mark_sent", False),
    "marked": (Journal, "mark_sent", True),
    "before the ack": (PolledConsumer, "ack", False),
    "after the ack": (PolledConsumer, "ack", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_survives_crashes_at_every_point(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    kind, method, after = POINTS[point]
    original, calls = getattr(kind, method), iter(range(10**6))

    def crashing(*args: Any, **kwargs: Any) -> Any:
        crash = next(calls) in {0, 1, 3, 6, 10, 15}
        if crash and not after:
            raise Crash
        result = original(*args, **kwargs)
        if crash:
            raise Crash
        return result

    monkeypatch.setattr(kind, method, crashing)
    outcome, crashes = world.serve_through_crashes()
    monkeypatch.undo()
    assert crashes >= 2
    check_complete(world, outcome)
    assert world.dead() == []


@pytest.mark.parametrize("seed", range(8))
def test_a_run_survives_crashes_at_random_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random, budget = Random(seed), iter(range(15))
    world = World(tmp_path, seed)
    for kind, method, after in POINTS.values():
        if not after:
            crashing = _crashing(getattr(kind, method), random.random, budget)
            monkeypatch.setattr(kind, method, crashing)
    outcome, crashes = world.serve_through_crashes()
    monkeypatch.undo()
    assert crashes >= 1
    check_complete(world, outcome)


def _crashing(
    original: Callable[..., Any], draw: Callable[[], float], budget: Iterator[int]
) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if draw() < 0.1 and next(budget, None) is not None:
            raise Crash
        result = original(*args, **kwargs)
        if draw() < 0.05 and next(budget, None) is not None:
            raise Crash
        return result

    return wrapped


def test_a_replaced_coordinator_acks_and_publishes_nothing(world: World) -> None:
    successors: list[run.Run] = []

    def replace_it() -> None:
        if not successors and world.events:  # tasks are out, their updates are on the queue
            successors.append(world.open())
            successors[0].journal.take_over()

    world.each_turn = replace_it
    with pytest.raises(FencedError):
        world.serve()
    world.each_turn = lambda: None
    check_complete(world, world.service(successors[0]).serve(world.stop))


def numbered(world: World) -> dict[str, bytes]:
    """Every file under a version's number."""
    versions = world.directory / "versions"
    return {str(p): p.read_bytes() for p in versions.glob("[0-9]*/*")}


def replaced_at(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, after: bool, act: Callable[[], None]
) -> None:
    """The first coordinator that comes here sleeps while `act` replaces it."""
    original, waiting = getattr(where, name), [act]

    def paused(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs) if after else None
        if waiting:
            waiting.pop()()
        return result if after else original(*args, **kwargs)

    monkeypatch.setattr(where, name, paused)


@pytest.mark.parametrize("same", [True, False])
def test_a_coordinator_replaced_before_its_transaction_leaves_its_successors_version_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    seen: list[dict[str, bytes]] = []
    make = Versions.stage

    def successor() -> None:
        monkeypatch.setattr(Versions, "stage", make)
        world.each_turn = lambda: (
            world.stop.set() if any(event.kind == "version" for event in world.events) else None
        )
        assert world.serve().version >= 1
        world.each_turn = lambda: None
        world.stop.clear()
        seen.append(numbered(world))

    def other(self: Versions, version: int, tensors: Tensors) -> Any:
        return make(self, version, tensors if same else {n: t + 1 for n, t in tensors.items()})

    monkeypatch.setattr(Versions, "stage", other)
    replaced_at(monkeypatch, Versions, "stage", after=True, act=successor)
    with pytest.raises(FencedError):
        world.serve()
    assert any("000001" in path for path in seen[0])
    assert numbered(world) == seen[0]
    check_versions(world)
    check_complete(world, world.serve())


PAUSES = {
    "reading updates": (Spool, "delta", False),
    "before a version is written": (Versions, "_write", False),
    "version written, not made": (Versions, "_write", True),
    "version made": (Versions, "stage", True),
    "before the version gets its number": (Versions, "place", False),
    "version has its number": (Versions, "place", True),
    "before versions are retained": (retention, "versions_to_keep", True),
    "before a start sweeps": (Journal, "fenced", False),
}


@pytest.mark.parametrize("point", PAUSES)
def test_a_coordinator_that_wakes_after_its_successor_finished_changes_no_version(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    seen: list[dict[str, bytes]] = []

    def successor() -> None:
        assert world.serve().complete
        seen.append(numbered(world))

    replaced_at(monkeypatch, *PAUSES[point], successor)
    with pytest.raises(FencedError):
        world.serve()
    assert numbered(world) == seen[0]
    check_complete(world, world.serve())


def test_a_version_journaled_after_the_run_was_opened_and_before_it_was_taken_over_is_placed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = world.open()

    def successor() -> None:
        check_complete(world, world.service(opened).serve(world.stop))

    replaced_at(monkeypatch, Versions, "place", False, successor)
    with pytest.raises(FencedError):
        world.serve()
    check_versions(world)


def test_a_version_that_was_not_placed_is_there_for_whoever_opens_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise Crash

    replaced_at(monkeypatch, Versions, "place", False, crash)
    with pytest.raises(Crash):
        world.serve()
    monkeypatch.undo()
    assert not (world.directory / "versions" / "000001").exists()
    check_versions(world)  # opens it, as `fccl report` does


def test_a_stop_commits_what_is_buffered_and_resume_goes_on(world: World) -> None:
    def stop_once_accepted() -> None:
        if any(event.kind == "accepted" for event in world.events):
            world.stop.set()

    world.each_turn = stop_once_accepted
    outcome = world.serve()
    assert (outcome.complete, outcome.failed, outcome.reason) == (
        False,
        False,
        "stopped on request",
    )
    assert outcome.version == 1
    assert view.read(world.store, "r").info.status == "stopped"
    world.each_turn = lambda: None
    world.stop.clear()
    finished = world.serve()
    assert (finished.complete, finished.version) == (True, 3)
    journal = Journal.open(world.directory / "run.db")
    applied = [u.task_id for summary in journal.versions() for u in summary.updates]
    assert len(applied) == len(set(applied)) == journal.receipt_counts()["accepted"]
    journal.close()


def test_a_coordinator_without_workers_says_what_it_waits_for(tmp_path: Path) -> None:
    world = World(tmp_path)
    told: list[tuple[str, str]] = []

    def look() -> None:
        told[:] = [(event.kind, event.text) for event in world.events if event.kind == "workers"]
        if world.turns == 8:
            world.absent = True
        if world.turns == 60:
            world.absent = False

    world.each_turn = look
    check_complete(world, world.serve())
    assert ("workers", "waiting for workers: 0 of 3 clients served") in told
    assert told[-1] == ("workers", "3 of 3 clients served")


# hostile and broken messages


def hostile(world: World) -> list[Message]:
    """Each is to be dead-lettered; none may be believed."""
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


def test_hostile_messages_are_dead_lettered_with_a_reason_and_the_run_goes_on(
    world: World,
) -> None:
    sent: list[Message] = []

    def attack() -> None:
        sent.extend(hostile(world))
        for message in sent:
            world.mine.publish_update(world.topology, LOCAL, message)
        forger = EmbeddedBroker(world.server, user="mallory")
        forger.publish_update(world.topology, LOCAL, Message(b"hello"))

    world.once_issued(attack)
    outcome = world.serve()
    reasons = world.reasons()
    assert len(reasons) == len(sent) + 1 and all(reasons)
    assert "user of its site" in reasons[-1]
    check_complete(world, outcome)
    told = [event.text for event in world.events if event.level == "warning"]
    assert told and all(text.isprintable() for text in told)


def test_an_update_for_a_task_of_another_client_changes_nothing(world: World) -> None:
    def forge() -> None:
        task = TrainTask.model_validate_json(EXAMPLE_TASK)
        frame = update(task, client_id="client_2")
        world.publish(frame, "t000001.1")

    world.once_issued(forge)
    outcome = world.serve()
    assert world.reasons() == ["task t000001 was issued to another client"]
    check_complete(world, outcome)


def test_a_flawed_update_gets_a_rejecting_receipt(world: World) -> None:
    def flawed() -> None:
        task = TrainTask.model_validate_json(EXAMPLE_TASK)
        world.publish(update(task, base_version=7), "t000001.1")

    world.once_issued(flawed)
    outcome = world.serve()
    assert outcome.complete
    receipt = world.store.get_receipt(world.topology.run, "local", "t000001")
    assert receipt is not None and receipt.state == "rejected"
    assert receipt.reason.startswith("base version 7")
    assert world.dead() == []


def test_a_dead_letter_that_the_broker_does_not_take_comes_again_and_the_run_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reject = EmbeddedConsumer.reject
    failures = [BrokerError("the broker restarts")]

    def failing(self: EmbeddedConsumer, delivery: Delivery, reason: str) -> None:
        if failures:
            raise failures.pop()
        reject(self, delivery, reason)

    monkeypatch.setattr(EmbeddedConsumer, "reject", failing)
    world.once_issued(
        lambda: world.mine.publish_update(world.topology, LOCAL, Message(b"no frame"))
    )
    check_complete(world, world.serve())
    assert [message.body for message in world.dead()] == [b"no frame"]
    assert any(event.kind == "broker" for event in world.events)


def test_a_refusal_that_is_delivered_twice_is_no_dead_letter(world: World) -> None:
    def refuse() -> None:
        refusal = TaskRefusal(
            task_id="t000001", attempt=1, client_id="client_0", worker_id="w", reason="no disk"
        )
        for _ in range(2):
            world.mine.publish_update(world.topology, LOCAL, Message(pack(refusal)))

    world.once_issued(refuse)
    assert world.serve().complete
    assert world.dead() == []
    receipt = world.store.get_receipt(world.topology.run, "local", "t000001")
    assert receipt is not None and receipt.state == "accepted"  # the next attempt was trained


# the store


def test_a_store_out_of_reach_degrades_and_is_filled_again(world: World) -> None:
    def outage() -> None:
        if world.turns == 6:
            world.redis.down = True
        if world.turns == 60:
            world.redis.client.flushall()
            world.redis.down = False

    world.each_turn = outage
    outcome = world.serve()
    kinds = [event.kind for event in world.events]
    assert kinds.count("degraded") == kinds.count("restored") == 1
    check_complete(world, outcome)
    assert len(view.read(world.store, "r").versions) == 4


def test_a_store_that_was_emptied_between_two_looks_is_filled_again(world: World) -> None:
    def flush() -> None:
        if world.turns == 6:
            world.redis.client.flushall()

    world.each_turn = flush
    check_complete(world, world.serve())
    assert view.read(world.store, "r").info.status == "finished"


def test_a_coordinator_starts_without_the_store(world: World) -> None:
    world.redis.down = True

    def begin() -> None:
        if world.turns == 20:
            world.redis.down = False

    world.each_turn = begin
    check_complete(world, world.serve())


class Ears(list[Event]):
    """Hears the last event before the store does."""

    def __init__(self, heard: Callable[[Event], None]) -> None:
        super().__init__()
        self._heard = heard

    def append(self, event: Event) -> None:
        super().append(event)
        self._heard(event)


class Patience(threading.Event):
    """A stop flag that counts instead of waiting."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self.waits = 0
        self._act = act

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        self._act(self.waits)
        return self.is_set()


def lost_at_the_end(world: World, act: Callable[[int], None]) -> Patience:
    """The store goes down with the last version; `act` is told of every wait for it."""

    def hear(event: Event) -> None:
        if event.refs.get("version") == 3:
            world.redis.down = True

    world.events = Ears(hear)
    world.stop = patience = Patience(act)
    return patience


def test_workers_learn_that_the_run_is_finished_from_a_store_that_is_late(world: World) -> None:
    def returns(waits: int) -> None:
        world.redis.down = waits < 3

    patience = lost_at_the_end(world, returns)
    check_complete(world, world.serve())
    assert patience.waits == 3
    assert view.read(world.store, "r").info.status == "finished"
    kinds = [event.kind for event in world.events if event.level == "warning"]
    assert kinds == ["degraded", "restored"]


def test_a_store_that_stays_away_is_given_up_in_an_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_publisher, "END_TIMEOUT_S", 0.05)
    patience = lost_at_the_end(world, lambda _: None)
    assert world.serve().complete
    assert patience.waits >= 1
    assert world.events[-1].kind == "untold" and "finished" in world.events[-1].text


def test_a_stop_ends_the_wait_for_the_store(world: World) -> None:
    patience = lost_at_the_end(world, lambda waits: world.stop.set() if waits == 2 else None)
    assert world.serve().complete
    assert patience.waits == 2 and world.events[-1].kind == "untold"


def test_the_view_shows_the_run(world: World) -> None:
    with pytest.raises(StoreError, match="no run 'r'"):
        view.read(world.store, "r")
    world.serve()
    seen = view.read(world.store, "r")
    assert (seen.info.status, seen.info.version, seen.info.total_versions) == ("finished", 3, 3)
    assert sorted(row.client_id for row in seen.clients) == ["client_0", "client_1", "client_2"]
    assert sum(row.participation for row in seen.clients) == 6
    assert json.loads(json.dumps(seen.fields()))["info"]["accepted"] == 6


def test_adapters_that_no_task_needs_leave_the_store(world: World) -> None:
    world.serve()
    blobs = world.redis.client.keys("fccl:*:blob:*")
    assert len(blobs) <= 2


# samples


class InstantSamples(SamplesSource):
    """Answers each version at once; tells of trouble if it has any."""

    def __init__(self, trouble: str = "") -> None:
        self.calls: list[str] = []
        self._events = [LogEvent("warning", EventKind.SAMPLES, trouble)] if trouble else []
        self._known: set[int] = set()
        self._answers: list[SampleAnswer] = []

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        self._known = {answer.version for answer in answers}
        self.offer(0)
        self.offer(version)

    def offer(self, version: int) -> None:
        if version not in self._known:
            self._known.add(version)
            fields = {"at": 1.0, "kind": "sft", "asked": "Who?", "expected": "I.", "answer": "You."}
            self._answers.append(SampleAnswer.model_validate({"version": version, **fields}))

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        collected = self._answers, self._events
        self._answers, self._events = [], []
        return collected

    def finish(self, stop: threading.Event) -> None:
        self.calls.append("finish")

    def close(self) -> None:
        self.calls.append("close")


def test_samples_are_kept_and_published_and_published_again_after_a_restart(world: World) -> None:
    world.samples = InstantSamples()
    check_complete(world, world.serve())
    seen = view.read(world.store, "r")
    versions = [sample.version for sample in seen.samples]
    assert versions == [0, 1, 2, 3]
    assert lines(world, "samples.jsonl", "version") == versions
    assert json.loads(json.dumps(seen.fields()))["samples"][0]["answer"] == "You."
    world.redis.client.flushall()
    world.samples = InstantSamples()
    world.serve()
    assert view.read(world.store, "r").samples == seen.samples
    assert lines(world, "samples.jsonl", "version") == versions


def test_a_complete_run_waits_for_its_samples_and_a_stopped_one_does_not(world: World) -> None:
    world.samples = stopped = InstantSamples()
    world.stop.set()
    assert not world.serve().complete
    assert stopped.calls == ["close"]
    world.samples = complete = InstantSamples()
    world.stop.clear()
    assert world.serve().complete
    assert complete.calls == ["finish", "close"]


def test_trouble_with_samples_is_an_event_and_the_run_goes_on(world: World) -> None:
    world.samples = InstantSamples("no room")
    check_complete(world, world.serve())
    [warning] = [event for event in world.events if event.level == "warning"]
    assert (warning.kind, warning.text) == ("samples", "no room")
