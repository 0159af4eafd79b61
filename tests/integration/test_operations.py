"""What operators look at, on real processes over real servers: metrics, health, logs."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.control.health import request
from tests.integration.test_federation import Make
from tests.support.federations import Federation, check_applied_once, federation
from tests.support.processes import eventually
from tests.support.servers import PrivateRedis, Server, ServerMissing, free_port

pytestmark = pytest.mark.servers
HERE = "127.0.0.1"
LOST = (False, "store: does not answer\n")


@pytest.fixture
def make(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, redis_server: Server
) -> Iterator[Make]:
    with ExitStack() as stack:

        def make(**sizes: int) -> Federation:
            own = federation(tmp_path, model_cache, rabbitmq.url, redis_server.url, **sizes)
            return stack.enter_context(own)

        yield make


def figures(port: int) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus reads them."""
    well, text = request(HERE, port, "/metrics")
    if not well:
        return {}
    return {
        name + "".join(label for _, label in sorted(labels.items())): value
        for family in text_string_to_metric_families(text)
        for name, labels, value, *_ in family.samples
    }


def test_both_sides_are_ready_once_they_work_and_count_what_they_do(make: Make) -> None:
    run = make(versions=200)
    ports = free_port(), free_port()
    coordinator = run.coordinator("--metrics-port", str(ports[0]))
    eventually("it answers", lambda: request(HERE, ports[0], "/livez")[0])
    worker = run.worker(FCCL_OPERATIONS__METRICS_PORT=str(ports[1]))
    for port in ports:
        eventually("ready", lambda port=port: request(HERE, port, "/readyz") == (True, "ok\n"))
    run.reaches(2)
    eventually("two versions", lambda: figures(ports[0]).get("fccl_version", 0) >= 2)
    seen = figures(ports[0])
    assert seen["fccl_updates_accepted_totallocal"] >= 4
    assert seen["fccl_workerslocal"] == seen["fccl_store_up"] == seen["fccl_broker_up"] == 1
    assert seen["fccl_commit_seconds_count"] >= 2
    assert "fccl_queue_messagestaskslocal" in seen
    mine = figures(ports[1])
    assert mine["fccl_worker_tasks_totaltrained"] >= 4
    assert mine["fccl_worker_tokens_total"] > 0
    assert mine["fccl_worker_publish_bytes_total"] > 0
    health = run.script("health", FCCL_OPERATIONS__METRICS_PORT=str(ports[1]))
    assert (health.end(), health.out, health.err) == (0, "ok\n", "")
    for each in (coordinator, worker):
        each.kill()
    health = run.script("health", "--port", str(ports[1]))
    assert health.end() == 1
    assert re.fullmatch(rf"no answer from {HERE}:{ports[1]}: .*\n", health.err)


def test_a_lost_store_makes_both_sides_unready_but_alive(
    tmp_path: Path, model_cache: Path, rabbitmq: Server
) -> None:
    try:
        store = PrivateRedis()
    except ServerMissing as error:
        pytest.skip(str(error))
    store.start()
    ports = free_port(), free_port()
    try:
        with federation(tmp_path, model_cache, rabbitmq.url, store.url, versions=500) as run:
            run.coordinator("--metrics-port", str(ports[0]))
            run.worker("--metrics-port", str(ports[1]))
            for port in ports:
                eventually("ready", lambda port=port: request(HERE, port, "/readyz")[0])
            store.kill()
            for port in ports:
                eventually("unready", lambda port=port: request(HERE, port, "/readyz") == LOST)
                assert request(HERE, port, "/livez") == (True, "ok\n")
            store.start()
            for port in ports:
                eventually("ready again", lambda port=port: request(HERE, port, "/readyz")[0])
    finally:
        store.close()


@pytest.mark.parametrize("name", ["coordinator", "worker"])
def test_a_taken_port_is_one_line_before_anything_else_is_done(make: Make, name: str) -> None:
    run = make()
    (run.run / "clients").mkdir(parents=True)
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        command = run.script(name, "--metrics-port", str(port), FCCL_RUN__DIR="elsewhere")
        assert command.end() == 2
    assert len(command.err.splitlines()) == 1, command.err
    assert f"{HERE}:{port}" in command.err
    assert "choose another --metrics-port" in command.err


def test_health_without_a_port_says_so(make: Make) -> None:
    command = make().script("health")
    assert command.end() == 2
    assert "operations.metrics_port is 0" in command.err


# Quorum queues


def test_a_run_over_quorum_queues_completes_and_keeps_its_type_of_queue(make: Make) -> None:
    run = make(versions=4)
    quorum = {"FCCL_BROKER__QUEUE_TYPE": "quorum"}
    coordinator = run.script("coordinator", "--plain", **quorum)
    eventually("the coordinator serves", lambda: run.epoch() == 1)
    worker = run.worker()
    run.reaches(1)
    coordinator.kill()
    other = run.coordinator("--resume")
    assert other.end() == 5
    assert "x-queue-type" in other.err
    assert "keep the run's settings" in other.err
    coordinator = run.script("coordinator", "--plain", "--resume", **quorum)
    assert (coordinator.end(), worker.end()) == (0, 0), coordinator.err
    assert run.version() == 4
    check_applied_once(run)


# JSON logs

JSON = {"FCCL_OPERATIONS__LOG": "json"}


def entries(text: str) -> list[dict[str, Any]]:
    """Every line, which must be an object with the keys that collectors look for."""
    found = [json.loads(line) for line in text.splitlines()]
    for entry in found:
        assert {"ts", "level", "kind", "message", "component"} <= entry.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["ts"])
    return found


def test_every_line_of_both_sides_is_json_to_the_end(make: Make) -> None:
    run = make(versions=2)
    coordinator = run.script("coordinator", **JSON)
    eventually("the coordinator serves", lambda: run.epoch() == 1)
    worker = run.script("worker", **JSON)
    assert (coordinator.end(), worker.end()) == (0, 0)
    told = entries(coordinator.out) + entries(coordinator.err)
    assert {entry["component"] for entry in told} == {"coordinator"}
    accepted = [entry for entry in told if entry["kind"] == "accepted"]
    assert all(entry["run"] == run.run_id and entry["task"] for entry in accepted)
    assert {entry["version"] for entry in told if entry["kind"] == "version"} == {1, 2}
    mine = entries(worker.out) + entries(worker.err)
    trained = [entry for entry in mine if entry["kind"] == "trained"]
    assert trained
    assert all(entry["site"] == "local" and entry["worker"] for entry in trained)


@pytest.mark.parametrize("name", ["coordinator", "worker"])
def test_errors_at_the_end_and_signals_are_json_too(make: Make, name: str) -> None:
    run = make()
    url = f"redis://:sesame@{HERE}:{free_port()}/0"
    wrong = run.script(name, "--no-such-option", **JSON)
    lost = run.script(name, FCCL_STORE__URL=url, FCCL_RUN__DIR="elsewhere", **JSON)
    unread = run.script(name, FCCL_SCHEDULE__CONCURRENCY="many", **JSON)
    for command, code in ((wrong, 2), (lost, 6), (unread, 2)):
        assert command.end() == code
        [entry] = entries(command.err)
        assert (entry["level"], entry["kind"], entry["exit_code"]) == ("error", "error", code)
        assert "sesame" not in command.err + command.out
    waiting = run.script("worker", FCCL_RUN__NAME="nobody", **JSON)
    waiting.says("waiting for the coordinator")
    waiting.signal(signal.SIGTERM)
    assert waiting.end() == 0
    assert "Ctrl-C" in entries(waiting.err)[0]["message"]
    assert entries(waiting.out)[-1]["message"] == "stopped before a run began"
