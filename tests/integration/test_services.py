"""Tests of `fccl services` with real servers, started and stopped by separate processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from broker.protocol import LOCAL, Message, Topology
from broker.rabbit import broker as rabbit
from cli.services import processes, servers
from cli.services.processes import Process, load
from cli.services.redis_server import PrivateRedis
from cli.services.servers import record_path
from common.errors import StoreAccessError
from common.store.store import connect
from tests.support.processes import Command, Commands, commands, eventually
from tests.support.servers import find_binaries

pytestmark = pytest.mark.slow

ANY = ("--broker-port", "0", "--store-port", "0", "--management-port", "0")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Commands]:
    """Return an empty directory; servers that were started in it are stopped at the end."""
    find_binaries()
    with commands(tmp_path, {}) as place:
        yield place
        place.script("services", "down").end()


def run(place: Commands, *args: str, code: int = 0) -> Command:
    command = place.script("services", *args)
    assert command.end() == code, command.out + command.err
    return command


def started(directory: Path) -> tuple[Process, ...]:
    """Return all processes that the records name."""
    homes = (directory / ".services/redis", directory / ".services/rabbitmq")
    return tuple(process for home in homes for process in load(record_path(home)).processes)


def processes_of(directory: Path) -> list[str]:
    """Return the processes with the environment of a private RabbitMQ here, recorded or not."""
    mark = f"RABBITMQ_PID_FILE={directory / '.services/rabbitmq/pid'}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "comm").read_text().strip())
    return found


def states(place: Commands, code: int) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(run(place, "status", "--json", code=code).out)
    return found


def test_the_two_servers_come_up_serve_keep_queues_and_leave_nothing(
    place: Commands, tmp_path: Path
) -> None:
    said = run(place, "up", *ANY).out
    assert "waiting for RabbitMQ" in said and "RabbitMQ is ready" in said
    found = states(place, 0)
    assert f"export FCCL_BROKER__URL={found['rabbitmq']['url']}" in said
    assert f"export FCCL_STORE__URL={found['redis']['url']}" in said

    # A second `up` changes nothing.
    before = started(tmp_path)
    assert {process.role for process in before} >= {"redis-server", "epmd", "node"}
    assert all(process.alive for process in before)
    assert "runs already" in run(place, "up").out
    assert started(tmp_path) == before

    connect(str(found["redis"]["url"])).set_run("name", "id")
    answer = httpx.get(f"{found['rabbitmq']['management']}/api/whoami", auth=("guest", "guest"))
    assert answer.json()["name"] == "guest"
    topology = Topology("kept")
    broker = rabbit.connect(str(found["rabbitmq"]["url"]))
    broker.declare(topology)
    broker.publish_task(topology, LOCAL, Message(b"task"))
    broker.close()

    said = run(place, "down").out
    assert "stopped RabbitMQ" in said and "stopped Redis" in said
    assert not any(process.alive for process in before)
    eventually("no process remains", lambda: not processes_of(tmp_path))
    assert {each["state"] for each in states(place, 1).values()} == {"stopped"}
    assert "nothing runs" in run(place, "down").out

    # After a restart on other ports, the queues are there again.
    run(place, "up", *ANY)
    broker = rabbit.connect(str(states(place, 0)["rabbitmq"]["url"]))
    assert broker.depths(topology)[topology.task_queue(LOCAL)].messages == 1
    broker.close()


def test_a_port_that_is_taken_is_named_with_its_holder_and_nothing_is_started(
    place: Commands, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = run(place, "up", *ANY, "--broker-port", port, code=2).err
    assert f"port {port} is taken by" in said and "--broker-port 0" in said
    assert "process" in said
    assert started(tmp_path) == ()


def test_servers_for_other_machines_use_tls_and_keep_their_password_to_themselves(
    place: Commands, tmp_path: Path
) -> None:
    assert "run `fccl certs` first" in run(place, "up", "--tls", "certs", code=2).err
    assert place.script("certs", "--host", "broker.example.org").end() == 0
    said = run(place, "up", *ANY, "--tls", "certs", "--tls-ports", "0", "0").out
    file = tmp_path / ".services/env"
    assert file.stat().st_mode & 0o77 == 0
    pairs = (line.removeprefix("export ").partition("=") for line in file.read_text().splitlines())
    variables = {name: value for name, _, value in pairs}
    assert "amqps://broker.example.org:" in said
    password = urlsplit(variables["FCCL_STORE__URL"]).password
    assert password is not None and password not in said + run(place, "status").out
    for process in started(tmp_path):
        assert password.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    ca = variables["FCCL_STORE__CA"]
    connect(variables["FCCL_STORE__URL"], ca=ca).ping()
    rabbit.connect(variables["FCCL_BROKER__URL"], ca=variables["FCCL_BROKER__CA"]).close()
    with pytest.raises(StoreAccessError):
        connect(variables["FCCL_STORE__URL"].replace(f":{password}@", ""), ca=ca).ping()
    run(place, "down")


def test_an_interrupted_up_stops_what_it_started(place: Commands, tmp_path: Path) -> None:
    command = place.script("services", "up", *ANY)
    command.says("waiting for RabbitMQ")
    redis = load(record_path(tmp_path / ".services/redis")).processes
    command.signal(signal.SIGINT)
    assert command.end() == 130
    assert redis and not any(process.alive for process in (*redis, *started(tmp_path)))
    if Path("/proc/self/environ").exists():
        eventually("no process remains", lambda: not processes_of(tmp_path))


def test_a_server_that_cannot_start_shows_the_end_of_its_log(
    place: Commands, tmp_path: Path
) -> None:
    (tmp_path / ".services/rabbitmq").mkdir(parents=True)
    (tmp_path / ".services/rabbitmq/data").write_text("no directory")
    said = run(place, "up", *ANY, code=5).err
    assert "RabbitMQ did not become ready" in said and "rabbitmq.log" in said
    assert said.count("\n") > 3  # the tail of the log
    assert started(tmp_path) == ()


def test_a_second_command_in_the_same_folder_is_refused_meanwhile(
    place: Commands, tmp_path: Path
) -> None:
    first = place.script("services", "up", *ANY)
    first.says("waiting for RabbitMQ")
    assert "another start is at work in" in run(place, "up", *ANY, code=7).err
    assert first.end() == 0


def test_binaries_that_are_missing_are_named_with_the_ways_to_get_them(
    place: Commands, tmp_path: Path
) -> None:
    command = place.script("services", "up", *ANY, PATH=str(tmp_path))
    assert command.end() == 6
    assert "redis-server is not on PATH" in command.err
    assert all(way in command.err for way in ("apt-get", "brew", "docker compose"))


def test_a_process_that_only_has_the_same_id_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "redis"
    home.mkdir()
    stranger = processes.spawn("sleep", ["sleep", "600"], os.environ, tmp_path / "log")
    try:
        earlier = replace(stranger, role="redis-server", began="another:1")
        processes.ProcessRecord({"main": 1}, (earlier,)).save(record_path(home))
        assert not servers.stop(PrivateRedis(home, 1))
        assert stranger.alive
    finally:
        stranger.signal(signal.SIGKILL)
        assert processes.wait_gone((stranger,), 30.0)
