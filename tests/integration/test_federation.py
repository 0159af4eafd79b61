"""Whole federations over real RabbitMQ and Redis, in processes that are stopped and killed."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pika
import pytest

from broker.chunks import split_update
from broker.dead_letter import DEAD_QUEUE, DEAD_REASON
from broker.protocol import LOCAL, Message, QueueMissing, Topology
from broker.rabbit import broker as rabbit
from common.protocol import codec, commands
from common.protocol.tasks import TaskRefusal, TrainTask
from common.protocol.updates import Update
from common.protocol.wire import pack
from common.store.store import connect
from tests.support.federations import Federation, MakeFederation, check_applied_once, federation
from tests.support.processes import Command, eventually, warm
from tests.support.servers import PrivateRedis, Server

pytestmark = pytest.mark.servers


# One run to its end, with the console script, and with hostile messages on its queues


@dataclass
class Finished:
    """Finished run, and what was observed of it."""

    run: Federation
    codes: list[int]
    workers: list[Command]
    status: dict[str, Any]
    dead: list[tuple[str, str]]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    model_cache: Path,
    rabbitmq: Server,
    redis_server: Server,
) -> Iterator[Finished]:
    directory = tmp_path_factory.mktemp("finished")
    elsewhere = str(tmp_path_factory.mktemp("elsewhere"))  # a worker without the base model
    with federation(directory, model_cache, rabbitmq.url, redis_server.url, versions=4) as run:
        coordinator = run.script("coordinator", "--plain")
        lacking = run.script("worker", FCCL_CACHE=elsewhere)
        warm()
        eventually("the coordinator serves", lambda: run.epoch() == 1)
        topology = Topology(run.run_id)
        publish_hostile_updates(rabbitmq.url, topology)
        publish_hostile_tasks(rabbitmq.url, topology)
        workers = [run.worker(), run.worker(), lacking]
        for worker in workers:
            worker.says("serves")
        run.reaches(1)
        status = eventually("status of version 1", lambda: if_shows(run.status(), 1))
        codes = [each.end() for each in (coordinator, *workers)]
        dead = read_dead(rabbitmq.url, topology)
        yield Finished(run, codes, workers, status, dead)


def if_shows(status: dict[str, Any] | None, version: int) -> dict[str, Any] | None:
    """Return the status once it shows a version; it is published every second."""
    return status if status and status["info"]["version"] >= version else None


def publish_hostile_updates(url: str, topology: Topology) -> None:
    """Publish everything that an update queue must survive, once the queues are declared."""
    broker = rabbit.connect(url)
    exchange = topology.update_exchange(LOCAL)

    def first() -> bool:
        try:
            broker.publish_update(topology, LOCAL, Message(b"no frame at all"))
        except QueueMissing:
            return False
        return True

    try:
        eventually("the queues are declared", first)
        empties = b"\xdd" + (60_000).to_bytes(4, "big") + b"\x90" * 60_000  # 60,000 lists
        bomb = b"FCCL" + bytes([1]) + len(empties).to_bytes(4, "little") + empties
        broker.publish_update(topology, LOCAL, Message(bomb))
        chunk = next(iter(split_update("t000001.1", b"0123456789")))
        forged = Message(b"9876543210", chunk.headers)
        broker.publish_update(topology, LOCAL, forged)
        for message in split_update("t000001.1", stranger()):
            broker.publish_update(topology, LOCAL, message)
        foreign = TaskRefusal(
            task_id="t000001", attempt=1, client_id="mallory", worker_id="m", reason="no"
        )
        broker.publish_update(topology, LOCAL, Message(pack(foreign)))
    finally:
        broker.close()
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        anonymous = connection.channel()  # sends no user
        anonymous.basic_publish(exchange, "", b"who am I")


def stranger() -> bytes:
    """Return a well-formed update of a client that does not exist."""
    layout, data = codec.encode("fp32", {"weights": np.zeros((2, 2), np.float32)})
    counts = dict.fromkeys(("num_samples", "num_tokens", "steps"), 1)
    losses = dict.fromkeys(("avg_loss", "loss_before", "loss_after"), 1.0)
    stats = counts | losses | {"train_seconds": 1.0, "delta_norm": 1.0}
    fields = {
        "task_id": "t000001", "attempt": 1, "client_id": "mallory", "worker_id": "m", "phase": 0,
        "base_version": 0, "stats": stats, "codec": "fp32", "sha256": codec.digest(data),
        "layout": layout.digest,
    }  # fmt: skip
    return pack(Update.model_validate(fields), data)


def publish_hostile_tasks(url: str, topology: Topology) -> None:
    broker = rabbit.connect(url)
    try:
        broker.publish_task(topology, LOCAL, Message(b"train this"))
        broker.publish_task(topology, LOCAL, Message(foreign_task()))
    finally:
        broker.close()


def foreign_task() -> bytes:
    """Return a valid task of another run."""
    digest = hashlib.sha256(b"").hexdigest()
    fields = {
        "task_id": "t1", "attempt": 1, "run": "another", "client_id": "client_0", "phase": 0,
        "objective": "sft", "base": {"name": "x", "kind": "hub", "digest": digest},
        "training": {
            "steps": 1, "epochs": 0, "batch_size": 1, "lr": 0.1, "max_grad_norm": 1.0,
            "prox_mu": 0.0, "max_length": 64,
        },
        "base_version": 0, "adapter": {"sha256": digest, "nbytes": 1}, "lora": {},
        "update_codec": "fp32", "seed": 0, "issued_at": 0.0, "deadline_s": 1.0,
    }  # fmt: skip
    return pack(TrainTask.model_validate(fields))


def read_dead(url: str, topology: Topology) -> list[tuple[str, str]]:
    """Return the kind of queue and the reason of every dead letter."""
    letters = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        while (got := channel.basic_get(topology.dead_queue, auto_ack=True))[0] is not None:
            headers = got[1].headers
            letters.append((headers[DEAD_QUEUE].rpartition(".tasks.")[0], headers[DEAD_REASON]))
        channel.queue_delete(topology.dead_queue)
    return [("tasks" if queue else "updates", reason) for queue, reason in letters]


def test_coordinator_and_workers_run_to_the_end_and_exit_0(finished: Finished) -> None:
    assert finished.codes == [0, 0, 0, 0]
    assert finished.run.version() == 4
    check_applied_once(finished.run)


def test_every_worker_reports_its_work_and_no_update_waits(finished: Finished) -> None:
    assert not [worker.out for worker in finished.workers if "NOT_FOUND" in worker.out]
    ends = [worker.out.splitlines()[-1] for worker in finished.workers]
    assert all("run small is finished" in end for end in ends)
    assert all(end.endswith("0 wait for a receipt") for end in ends)


def test_status_shows_the_run_while_it_runs(finished: Finished) -> None:
    info = finished.status["info"]
    assert info["name"] == "small"
    assert info["status"] in ("running", "finished")
    assert info["version"] >= 1
    assert [row["client_id"] for row in finished.status["clients"]] == [
        f"client_{i}" for i in range(3)
    ]
    assert {worker["site"] for worker in finished.status["workers"]} <= {"local"}


def test_status_shows_the_run_after_its_end(finished: Finished) -> None:
    after = finished.run.status()
    assert after is not None
    assert (after["info"]["status"], after["info"]["version"]) == ("finished", 4)
    assert [version["version"] for version in after["versions"]] == [0, 1, 2, 3, 4]


def test_the_last_version_loads_with_peft(finished: Finished, model_cache: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from learning.models import base

    path = base.resolve("offline:gpt2-micro", None, model_cache, lambda *_: None).path
    model = AutoModelForCausalLM.from_pretrained(path)
    adapted = PeftModel.from_pretrained(model, str(finished.run.run / "versions" / "000004"))
    moved = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert moved and all(float(p.abs().max()) > 0 for p in moved)


def test_the_report_is_written(finished: Finished) -> None:
    report = finished.run.run / "report"
    fields = json.loads((report / "report.json").read_text())
    assert fields["federated"]["nats_per_token"] > 0
    assert (report / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "## Updates" in (report / "report.md").read_text()


def test_the_run_directory_keeps_no_credential(finished: Finished, rabbitmq: Server) -> None:
    assert rabbitmq.url not in (finished.run.run / "federation.toml").read_text()


def test_hostile_messages_are_dead_letters_with_their_reasons(finished: Finished) -> None:
    expected = [
        ("updates", "^(?!a worker).*(not an fccl frame|too short)"),
        ("updates", "not msgpack within the limits|pair"),
        ("updates", "does not have the hash it claims"),
        ("updates", "unknown client mallory"),
        ("updates", "refusal"),
        ("updates", "broker-validated user"),
        # Returned by a worker, on the only queue that a site may write to.
        ("updates", "cannot read this task: .*(not an fccl frame|too short)"),
        ("updates", "cannot read this task: a task of run another"),
    ]
    assert len(finished.dead) == len(expected)
    for queue, reason in expected:
        assert [q for q, why in finished.dead if re.search(reason, why)].count(queue) == 1


# Kills


def test_a_killed_coordinator_is_resumed_and_applies_every_update_once(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(versions=5)
    coordinator = run.coordinator()
    workers = [run.worker(), run.worker()]
    run.reaches(2)
    coordinator.kill()
    assert run.version() < 5
    assert run.coordinator("--resume").end() == 0
    assert run.version() == 5
    check_applied_once(run)
    assert [worker.end() for worker in workers] == [0, 0]


@pytest.mark.slow
def test_the_task_of_a_killed_worker_is_issued_again_and_trained_by_another(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(
        versions=2, steps=250
    )  # long enough that the task is not done when it is killed
    coordinator, workers = run.coordinator(), [run.worker(), run.worker()]
    for each in workers:  # a later one would take the slot of the killed one, and its task
        each.says("serves")
    beat = run.training()
    victim = next(w for w in workers if f"worker {beat.worker_id} serves" in w.out)
    victim.kill()
    assert coordinator.end() == 0
    check_applied_once(run)
    query = "SELECT attempt, worker_id FROM accepted WHERE task_id = '{}'"
    [(attempt, worker)] = run.rows(query.format(beat.task_id))
    assert attempt >= 2
    assert worker != beat.worker_id
    assert [w.end() for w in workers if w is not victim] == [0]


@pytest.mark.slow
def test_a_killed_broker_comes_back_and_the_run_goes_on(
    make_federation: MakeFederation, restartable_rabbitmq: Server
) -> None:
    run = make_federation(versions=5)
    processes = [run.coordinator(), run.worker(), run.worker()]
    run.reaches(1)
    restartable_rabbitmq.restart(kill=True)
    assert run.version() < 5
    assert [process.end() for process in processes] == [0, 0, 0]
    assert run.version() == 5
    check_applied_once(run)


@pytest.mark.slow
def test_a_store_that_is_lost_and_comes_back_empty_only_pauses_the_run(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, private_redis: PrivateRedis
) -> None:
    with federation(tmp_path, model_cache, rabbitmq.url, private_redis.url, versions=5) as run:
        coordinator = run.coordinator()
        workers = [run.worker(), run.worker()]
        run.reaches(1)
        private_redis.kill()
        coordinator.says("degraded")
        private_redis.empty()
        private_redis.start()
        coordinator.says("restored")
        assert [process.end() for process in (coordinator, *workers)] == [0, 0, 0]
        assert run.version() == 5
        check_applied_once(run)
        status = run.status()
        assert status is not None
        assert [version["version"] for version in status["versions"]] == [0, 1, 2, 3, 4, 5]


@pytest.fixture
def private_redis() -> Iterator[PrivateRedis]:
    server = PrivateRedis()
    server.start()
    yield server
    server.close()


# Stops


def test_ctrl_c_ends_both_sides_cleanly_and_resume_completes_the_run(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(versions=3, steps=30, buffer=3)
    coordinator, worker = run.coordinator(), run.worker()
    buffered = eventually("an update is buffered", lambda: unapplied(run))
    coordinator.signal(signal.SIGINT)
    assert coordinator.end() == 10
    assert "stopped on request" in coordinator.out
    assert "--resume" in coordinator.out
    assert not unapplied(run)
    assert buffered <= {task for line in run.lines("progress.jsonl") for task in line["updates"]}

    resumed = run.coordinator("--resume")
    run.training()
    worker.signal(signal.SIGINT)
    assert worker.end() == 0
    assert re.search(r"stopped: trained \d+ tasks, abandoned 1", worker.out)
    again = run.worker()
    assert resumed.end() == 0
    assert again.end() == 0
    assert run.version() == 3
    check_applied_once(run)


def unapplied(run: Federation) -> set[str]:
    """Return the accepted updates that wait for a commit."""
    return {task for (task,) in run.rows("SELECT task_id FROM accepted WHERE version IS NULL")}


@pytest.mark.slow
def test_a_paused_coordinator_that_was_replaced_ends_and_writes_nothing(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(versions=6)
    old = run.coordinator()
    workers = [run.worker(), run.worker()]
    run.reaches(1)
    run.freeze(old)
    new = run.coordinator("--resume")
    eventually("the new one has taken over", lambda: run.epoch() == 2)
    before = attempts_of_epoch_1(run)
    old.signal(signal.SIGCONT)
    assert old.end() == 8
    assert "another coordinator has taken over" in old.err
    assert "Traceback" not in old.err
    assert new.end() == 0
    assert [worker.end() for worker in workers] == [0, 0]
    assert attempts_of_epoch_1(run) == before
    assert run.version() == 6
    check_applied_once(run)


@pytest.mark.slow
def test_a_coordinator_stopped_within_a_transaction_is_named_and_replaced_once_killed(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(versions=6)
    old, workers = run.coordinator(), [run.worker(), run.worker()]
    run.reaches(1)
    run.freeze(old, in_transaction=True)
    given_up = run.coordinator("--resume")
    assert given_up.end() == 7
    assert f"process id {old.pid} on" in given_up.err
    assert f"`kill -KILL {old.pid}` ends it" in given_up.err
    # Readers are not held up; the frozen coordinator may not have published its newest version.
    assert (run.status() or {})["info"]["version"] <= run.version()
    new = run.coordinator("--resume")
    new.says("run.db is locked by")
    old.kill()
    assert new.end() == 0
    assert [worker.end() for worker in workers] == [0, 0]
    assert run.version() == 6
    check_applied_once(run)


def attempts_of_epoch_1(run: Federation) -> list[tuple[Any, ...]]:
    return run.rows("SELECT task_id, attempt FROM attempt WHERE epoch = 1 ORDER BY 1, 2")


def test_an_operator_pauses_resumes_kicks_and_drains_a_run(
    make_federation: MakeFederation, redis_server: Server
) -> None:
    """The whole path of a command: console, store, coordinator, journal, reply."""
    small = make_federation(versions=400)
    coordinator, worker = small.coordinator(), small.worker("--forever")
    small.reaches(1)
    assert small.order("pause").out == "pause: done\n"
    eventually(
        "the tasks in flight come in", lambda: not small.rows("SELECT 1 FROM task WHERE open")
    )
    version = small.version()
    status = small.status()
    assert status is not None and status["info"]["status"] == "paused"
    refused = small.order("pause", code=7)
    assert refused.err == "fccl: the coordinator refuses: the run is paused\n"
    coordinator.kill()  # a pause outlives its coordinator
    killed = time.time()
    coordinator = small.coordinator("--resume")

    def paused_again() -> bool:
        info = (small.status() or {"info": {}})["info"]
        return info.get("status") == "paused" and info["updated_at"] > killed

    eventually("it is back", paused_again)
    assert small.order("kick", "client_0", "--yes").out == "kick client_0: done\n"
    assert "there is no client nobody" in small.order("kick", "nobody", "--yes", code=7).err
    assert small.order("resume").out == "resume: done\n"
    small.reaches(version + 1)
    assert "--yes" in small.order("stop", code=2).err
    assert small.order("drain", "--yes").out == "drain: done\n"
    assert coordinator.end() == 10
    assert "drained on request" in coordinator.out
    over = small.order("stop", "--yes", code=7)
    assert over.err == "fccl: run small is stopped: no coordinator serves it; see `fccl status`\n"
    store = connect(redis_server.url)
    commands.send(store, small.run_id, "stop")  # from before the coordinator's start
    coordinator = small.coordinator("--resume")
    eventually("it is refused", lambda: not store.commands(small.run_id))
    worker.says("serves")
    before = small.version()
    small.reaches(before + 1)
    coordinator.signal(signal.SIGTERM)
    assert coordinator.end() == 10
    worker.kill()
    check_applied_once(small)
