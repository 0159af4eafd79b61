"""Fixtures that several suites share: servers, started once per session when first needed.

A missing server fails the tests that need it (`servers.ServerMissing` has the remedy): a suite that
quietly skipped them would prove nothing. `pytest -m "not servers"` leaves them out on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import servers
from tests.support.tls_servers import TlsServers, start_tls_servers

# The time that an example takes depends on the machine more than on the code.
settings.register_profile("fccl", deadline=None)
settings.load_profile("fccl")


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[servers.Server]:
    """Return a running RabbitMQ. Tests share it, so each uses its own run ids."""
    yield from _serve(servers.rabbitmq)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Server]:
    """Return a running Redis. Tests share it, so each uses its own run ids."""
    yield from _serve(servers.redis_server)


@pytest.fixture
def restartable_rabbitmq(rabbitmq: servers.Server) -> Iterator[servers.Server]:
    """Return the RabbitMQ for tests that restart it; it runs again afterwards."""
    if not rabbitmq.restartable:
        pytest.skip("FCCL_TEST_RABBITMQ_URL names a server that these tests must not restart")
    yield rabbitmq
    rabbitmq.start()


@pytest.fixture(scope="session")
def tls_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServers]:
    """Return a RabbitMQ with its management API and a Redis, over TLS, for own run names."""
    servers.find_binaries()
    with start_tls_servers(tmp_path_factory.mktemp("tls_servers")) as found:
        yield found


def _serve(start: Callable[[], servers.Server]) -> Iterator[servers.Server]:
    server = start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder with `offline:gpt2-micro`, made once per session."""
    from learning.models import base

    cache = tmp_path_factory.mktemp("cache")
    base.resolve("offline:gpt2-micro", None, cache, lambda message, fraction: None)
    return cache
