"""Tests of liveness and readiness, and of the server that reports them."""

from __future__ import annotations

import contextlib
import http.client
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter

from cli.control.health import request
from common.config.config import OperationsConfig
from common.errors import ConfigError
from common.operations.health import Health
from common.operations.http_server import MAX_CONNECTIONS
from common.operations.metrics_server import _Handler, _Server, serve
from tests.support.processes import LONG
from tests.support.servers import free_port


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_process_is_alive_while_its_loop_turns_within_the_limit() -> None:
    clock = Clock()
    health = Health([], 10.0, clock)
    clock.now = 1000.0
    assert health.stalled() == ""  # the loop has not begun: starting may take long
    health.tick()
    clock.now += 10.0
    assert health.stalled() == ""
    clock.now += 1.0
    assert health.stalled() == "the main loop has not turned for 11 s"
    assert health.problems() == ("loop: the main loop has not turned for 11 s",)
    health.tick()
    assert health.stalled() == ""
    clock.now += 100.0
    health.pause()
    assert health.stalled() == ""


def test_a_process_is_ready_once_every_part_works() -> None:
    health = Health(["broker", "store"], 10.0)
    assert health.problems() == ("broker: not yet", "store: not yet")
    health.set_problem("store")
    assert (health.is_working("broker"), health.is_working("store")) == (False, True)
    health.set_problem("broker")
    assert health.problems() == ()
    health.set_problem("broker", "lost: no route")
    assert health.problems() == ("broker: lost: no route",)


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1"])
def test_metrics_and_probes_are_served(bind: str) -> None:
    clock, metrics = Clock(), CollectorRegistry()
    health = Health(["store"], 10.0, clock)
    Counter("fccl_something", "Something", registry=metrics).inc()
    operations = OperationsConfig(metrics_port=free_port(), bind=bind)
    if bind == "::1" and not _has_ipv6():
        pytest.skip("no IPv6 here")
    with serve(operations, metrics, health):
        port = operations.metrics_port
        assert request(bind, port, "/livez") == (True, "ok\n")
        assert request(bind, port, "/readyz") == (False, "store: not yet\n")
        health.set_problem("store")
        assert request(bind, port, "/readyz") == (True, "ok\n")
        health.tick()
        clock.now += 11.0
        assert request(bind, port, "/livez") == (False, "the main loop has not turned for 11 s\n")
        well, text = request(bind, port, "/metrics")
        assert well
        assert "fccl_something_total 1.0" in text
        assert request(bind, port, "/")[0] is False
    assert request(bind, port, "/livez")[0] is False


def _status(port: int, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    connection.request("GET", "/metrics", headers=headers)
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_web_page_cannot_read_metrics_on_loopback_under_a_name_of_its_own() -> None:
    operations = OperationsConfig(metrics_port=free_port())
    port = operations.metrics_port
    with serve(operations, CollectorRegistry(), Health([], 10.0)):
        assert _status(port) == _status(port, Host="localhost:1") == 200
        assert _status(port, Host="evil.example") == 403
        assert _status(port, Origin="http://evil.example") == 403


def test_the_number_of_connections_is_limited_and_a_slow_one_is_cut_off() -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.set_app(lambda environ, start: [])
    with server, server.running("metrics"), contextlib.ExitStack() as stack:
        address = server.server_address[:2]
        slow = [
            stack.enter_context(socket.create_connection(address, LONG))
            for _ in range(MAX_CONNECTIONS)
        ]
        for each in slow:
            each.sendall(b"G")
        last = stack.enter_context(socket.create_connection(address, LONG))
        assert last.recv(1000).startswith(b"HTTP/1.1 503 ")
        server.request_s = 0.0
        for each in slow:
            while each.recv(1000):
                pass


def test_nothing_is_served_on_port_0() -> None:
    with serve(OperationsConfig(), CollectorRegistry(), Health([], 1.0)):
        pass


def test_a_taken_port_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        operations = OperationsConfig(metrics_port=port)
        with (
            pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: .*; choose another"),
            serve(operations, CollectorRegistry(), Health([], 1.0)),
        ):
            pass


def test_a_client_that_hangs_keeps_nobody_else_from_an_answer() -> None:
    operations = OperationsConfig(metrics_port=free_port())
    with serve(operations, CollectorRegistry(), Health([], 1.0)):
        port = operations.metrics_port
        hanging = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        assert request("127.0.0.1", port, "/livez") == (True, "ok\n")
        for each in hanging:
            each.close()


def test_a_server_that_answers_nonsense_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.connect()
        accepted, _ = server.accept()
        accepted.sendall(b"nonsense\r\n\r\n")
        accepted.close()
        connection.close()
    well, text = request("127.0.0.1", port, "/readyz")
    assert not well
    assert text.startswith(f"no answer from 127.0.0.1:{port}: ")


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
