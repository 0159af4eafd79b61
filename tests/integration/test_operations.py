"""Metrics, health and logs of real processes over real servers."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from cli.control.health import request
from tests.support.federations import MakeFederation, check_applied_once, federation
from tests.support.processes import eventually
from tests.support.prometheus import LOOPBACK, read_metrics
from tests.support.servers import PrivateRedis, Server, free_port

pytestmark = [pytest.mark.servers, pytest.mark.slow]
LOST = (False, "store: does not answer\n")


def test_both_sides_are_ready_once_they_work_and_count_what_they_do(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(versions=200)
    ports = free_port(), free_port()
    coordinator = run.coordinator("--metrics-port", str(ports[0]))
    eventually("it answers", lambda: request(LOOPBACK, ports[0], "/livez")[0])
    worker = run.worker(FCCL_OPERATIONS__METRICS_PORT=str(ports[1]))
    for port in ports:
        eventually("ready", lambda port=port: request(LOOPBACK, port, "/readyz") == (True, "ok\n"))
    run.reaches(2)
    eventually("two versions", lambda: read_metrics(ports[0]).get("fccl_version", 0) >= 2)
    seen = read_metrics(ports[0])
    assert seen["fccl_updates_accepted_totallocal"] >= 4
    assert seen["fccl_workerslocal"] == seen["fccl_store_up"] == seen["fccl_broker_up"] == 1
    assert seen["fccl_commit_seconds_count"] >= 2
    assert "fccl_queue_messagestaskslocal" in seen
    mine = read_metrics(ports[1])
    assert mine["fccl_worker_tasks_totaltrained"] >= 4
    assert mine["fccl_worker_tokens_total"] > 0
    assert mine["fccl_worker_publish_bytes_total"] > 0
    health = run.script("health", FCCL_OPERATIONS__METRICS_PORT=str(ports[1]))
    assert (health.end(), health.out, health.err) == (0, "ok\n", "")
    for each in (coordinator, worker):
        each.kill()
    health = run.script("health", "--port", str(ports[1]))
    assert health.end() == 1
    assert re.fullmatch(rf"no answer from {LOOPBACK}:{ports[1]}: .*\n", health.err)


def test_a_lost_store_makes_both_sides_unready_but_alive(
    tmp_path: Path, model_cache: Path, rabbitmq: Server
) -> None:
    store = PrivateRedis()
    store.start()
    ports = free_port(), free_port()
    try:
        with federation(tmp_path, model_cache, rabbitmq.url, store.url, versions=500) as run:
            run.coordinator("--metrics-port", str(ports[0]))
            run.worker("--metrics-port", str(ports[1]))
            for port in ports:
                eventually("ready", lambda port=port: request(LOOPBACK, port, "/readyz")[0])
            store.kill()
            for port in ports:
                eventually("unready", lambda port=port: request(LOOPBACK, port, "/readyz") == LOST)
                assert request(LOOPBACK, port, "/livez") == (True, "ok\n")
            store.start()
            for port in ports:
                eventually("ready again", lambda port=port: request(LOOPBACK, port, "/readyz")[0])
    finally:
        store.close()


@pytest.mark.parametrize("name", ["coordinator", "worker"])
def test_a_taken_port_is_one_line_before_anything_else_is_done(
    make_federation: MakeFederation, name: str
) -> None:
    run = make_federation()
    (run.run / "clients").mkdir(parents=True)
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        command = run.script(name, "--metrics-port", str(port), FCCL_RUN__DIR="elsewhere")
        assert command.end() == 2
    assert len(command.err.splitlines()) == 1, command.err
    assert f"{LOOPBACK}:{port}" in command.err
    assert "choose another --metrics-port" in command.err


def test_health_without_a_port_says_so(make_federation: MakeFederation) -> None:
    command = make_federation().script("health")
    assert command.end() == 2
    assert "operations.metrics_port is 0" in command.err


# Quorum queues


def test_a_run_over_quorum_queues_completes_and_keeps_its_type_of_queue(
    make_federation: MakeFederation,
) -> None:
    run = make_federation(versions=4)
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


def json_lines(text: str) -> list[dict[str, Any]]:
    """Return the lines as objects; check the keys that collectors look for."""
    entries = [json.loads(line) for line in text.splitlines()]
    for entry in entries:
        assert {"ts", "level", "kind", "message", "component"} <= entry.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["ts"])
    return entries


def test_every_line_of_both_sides_is_json_to_the_end(make_federation: MakeFederation) -> None:
    run = make_federation(versions=2)
    coordinator = run.script("coordinator", **JSON)
    eventually("the coordinator serves", lambda: run.epoch() == 1)
    worker = run.script("worker", **JSON)
    assert (coordinator.end(), worker.end()) == (0, 0)
    logged = json_lines(coordinator.out) + json_lines(coordinator.err)
    assert {entry["component"] for entry in logged} == {"coordinator"}
    accepted = [entry for entry in logged if entry["kind"] == "accepted"]
    assert all(entry["run"] == run.run_id and entry["task"] for entry in accepted)
    assert {entry["version"] for entry in logged if entry["kind"] == "version"} == {1, 2}
    mine = json_lines(worker.out) + json_lines(worker.err)
    trained = [entry for entry in mine if entry["kind"] == "trained"]
    assert trained
    assert all(entry["site"] == "local" and entry["worker"] for entry in trained)


@pytest.mark.parametrize("name", ["coordinator", "worker"])
def test_errors_at_the_end_and_signals_are_json_too(
    make_federation: MakeFederation, name: str
) -> None:
    run = make_federation()
    url = f"redis://:sesame@{LOOPBACK}:{free_port()}/0"
    wrong = run.script(name, "--no-such-option", **JSON)
    lost = run.script(name, FCCL_STORE__URL=url, FCCL_RUN__DIR="elsewhere", **JSON)
    unread = run.script(name, FCCL_SCHEDULE__CONCURRENCY="many", **JSON)
    for command, code in ((wrong, 2), (lost, 6), (unread, 2)):
        assert command.end() == code
        [entry] = json_lines(command.err)
        assert (entry["level"], entry["kind"], entry["exit_code"]) == ("error", "error", code)
        assert "sesame" not in command.err + command.out
    waiting = run.script("worker", FCCL_RUN__NAME="nobody", **JSON)
    waiting.says("waiting for the coordinator")
    waiting.signal(signal.SIGTERM)
    assert waiting.end() == 0
    assert "Ctrl-C" in json_lines(waiting.err)[0]["message"]
    assert json_lines(waiting.out)[-1]["message"] == "stopped before a run began"
