"""Tests of `fccl certs` with RabbitMQ and Redis servers that use its files."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from broker.protocol import BrokerState, BrokerStatus
from broker.rabbit import broker as rabbit
from common.errors import BrokerError, FcclError, StoreError
from common.store.store import connect
from tests.support.servers import Server
from tests.support.tls_servers import TlsServers, certs

OTHER = "127.1"
"""Reaches 127.0.0.1 as well, and is not in any certificate."""
SECRET = "sesame"


@pytest.fixture
def secured(tls_servers: TlsServers) -> TlsServers:
    return tls_servers


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """Authority that did not sign the servers' certificates."""
    certs(tmp_path / "foreign")
    return str(tmp_path / "foreign/ca.pem")


def broker_error(url: str, ca: str | None) -> str:
    with pytest.raises(BrokerError) as caught:
        rabbit.connect(url, ca=ca)
    return one_line(caught.value)


def store_error(url: str, ca: str | None) -> str:
    with pytest.raises(StoreError) as caught:
        connect(url, ca=ca)
    return one_line(caught.value)


def one_line(error: FcclError) -> str:
    text = str(error)
    assert "\n" not in text and SECRET not in text
    return text


def test_a_broker_with_these_files_is_reached_over_tls(secured: TlsServers) -> None:
    statuses: list[BrokerStatus] = []
    rabbit.connect(secured.amqps, statuses.append, ca=secured.ca).close()
    assert statuses[0] == BrokerStatus(BrokerState.CONNECTED)


def test_a_store_with_these_files_is_reached_over_tls(secured: TlsServers) -> None:
    connect(secured.rediss, ca=secured.ca).ping()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_certificates_pass_the_strictest_verification(secured: TlsServers, host: str) -> None:
    context = ssl.create_default_context(cafile=secured.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for url in (secured.amqps, secured.rediss):
        port = int(url.rpartition(":")[2].partition("/")[0])
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            assert tls.version() == "TLSv1.3"


def test_an_authority_that_did_not_sign_is_named_as_the_reason(
    secured: TlsServers, foreign: str
) -> None:
    for ca in (foreign, None):
        said = broker_error(secured.amqps, ca)
        assert "of an unknown authority" in said and "set broker.ca" in said
        said = store_error(secured.rediss, ca)
        assert "of an unknown authority" in said and "set store.ca" in said


def test_a_host_that_the_certificate_does_not_name_is_the_reason(secured: TlsServers) -> None:
    for said in (
        broker_error(secured.amqps.replace("localhost", OTHER), secured.ca),
        store_error(secured.rediss.replace("localhost", OTHER), secured.ca),
    ):
        assert f"at {OTHER}:" in said and "for another host" in said
        assert "fccl certs --host" in said


def test_a_plain_port_is_no_tls_port(secured: TlsServers, rabbitmq: Server) -> None:
    said = broker_error(rabbitmq.url.replace("amqp://", "amqps://"), secured.ca)
    assert "does not speak TLS at this port" in said and "broker.url" in said


def test_a_tls_port_is_no_plain_port(secured: TlsServers) -> None:
    said = broker_error(secured.amqps.replace("amqps://", "amqp://"), None)
    assert "does not answer like RabbitMQ" in said and "amqps:// for a TLS port" in said
    said = store_error(secured.rediss.replace("rediss://", "redis://"), None)
    assert "a TLS port needs rediss://" in said


def test_a_wrong_password_over_tls_is_reported_as_such(secured: TlsServers) -> None:
    said = broker_error(secured.amqps.replace(":guest@", f":{SECRET}@"), secured.ca)
    assert "refuses this user or password" in said
    said = store_error(secured.rediss.replace("://", f"://nobody:{SECRET}@"), secured.ca)
    assert "refuses this user or password" in said


def test_a_file_without_certificates_is_named(secured: TlsServers, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    assert "empty.pem (it is not PEM); set broker.ca" in broker_error(secured.amqps, str(empty))
    assert "empty.pem (it is not PEM); set store.ca" in store_error(secured.rediss, str(empty))
    gone = str(tmp_path / "gone.pem")
    assert "gone.pem (No such file" in store_error(secured.rediss, gone)
