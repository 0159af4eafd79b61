"""Tests of the ports that `fccl services` chooses, and of its process records."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cli.services import command, ports, processes
from cli.services.processes import Process, ProcessRecord
from tests.support.processes import restore_interrupts


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("amqp://guest:guest@127.0.0.1:5673/", 5673),
        ("amqp://localhost", 5672),
        ("amqps://localhost:5671/", 5672),  # a private server speaks plain
        ("amqp://broker.example.org:5673/", 5672),  # not this machine's
    ],
)
def test_the_port_is_that_of_a_plain_loopback_url(url: str, port: int) -> None:
    assert command.choose_port(url, "amqp", 5672, None) == port
    assert command.choose_port(url, "amqp", 5672, 7000) == 7000


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("amqp://guest:guest@127.0.0.1:5672/", "amqp://localhost/%2F", True),
        ("amqp://guest:guest@127.0.0.1:5672/", "amqp://guest:guest@127.0.0.1:5672/other", False),
        ("amqp://guest:guest@127.0.0.1:5672/", "amqp://site:x@127.0.0.1:5672/", False),
        ("amqp://guest:guest@127.0.0.1:5672/", "amqps://guest:guest@127.0.0.1:5672/", False),
        ("redis://127.0.0.1:6379/0", "redis://localhost", True),
        ("redis://127.0.0.1:6379/0", "redis://localhost/1", False),
    ],
)
def test_urls_of_one_server_are_recognised_however_written(
    one: str, other: str, same: bool
) -> None:
    assert (command.server_key(one) == command.server_key(other)) is same


def test_a_record_is_read_back_and_a_torn_one_names_no_process(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    record = ProcessRecord({"main": 5672}, (Process("node", 12, "boot:34"),))
    record.save(path)
    assert processes.load(path) == record
    path.write_text(path.read_text()[:40])
    assert processes.load(path) == ProcessRecord({}, ()) == processes.load(tmp_path / "none")


def test_this_process_is_alive_and_another_of_its_id_is_not() -> None:
    me = processes.find_process("me", os.getpid())
    assert me is not None and me.alive
    assert not Process("me", me.pid, "earlier").alive
    assert processes.find_process("nobody", 2**22 + 1) is None


def test_free_ports_are_outside_the_range_of_outgoing_connections() -> None:
    assert all(20_000 <= ports.free_port() <= 32_000 for _ in range(20))


def test_a_ctrl_c_is_deferred_until_a_new_process_is_recorded() -> None:
    restore_interrupts()  # the tests may run in the background of a shell that ignores them
    recorded, before = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), processes.defer_interrupt():
        signal.raise_signal(signal.SIGINT)
        recorded.append("process")
    assert recorded == ["process"]
    assert signal.getsignal(signal.SIGINT) is before
