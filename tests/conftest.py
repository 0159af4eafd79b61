"""Fixtures that several suites share: the servers, started once per session when first asked for.

A missing server skips the tests that need it on a laptop, and fails them where `CI=true`: a
build that quietly tested nothing would say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import servers
from tests.support.tls_servers import Guarded, guarded

# How long an example takes says more about the machine than about the code.
settings.register_profile("fccl", deadline=None)
settings.load_profile("fccl")


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[servers.Server]:
    """A running RabbitMQ. Tests share it: use run ids of your own."""
    yield from _serve(servers.rabbitmq)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Server]:
    """A running Redis. Tests share it: use run ids of your own."""
    yield from _serve(servers.redis_server)


@pytest.fixture
def restartable_rabbitmq(rabbitmq: servers.Server) -> Iterator[servers.Server]:
    """The same, in tests that restart it; it runs again afterwards."""
    if not rabbitmq.restartable:
        pytest.skip("FCCL_TEST_RABBITMQ_URL names a server that is not ours to restart")
    yield rabbitmq
    rabbitmq.start()


@pytest.fixture(scope="session")
def guarded_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A RabbitMQ with its management API and a Redis, over TLS. Use run names of your own."""
    with needed():
        servers.find_binaries()
    with guarded(tmp_path_factory.mktemp("guarded")) as found:
        yield found


def _serve(start: Callable[[], servers.Server]) -> Iterator[servers.Server]:
    with needed():
        server = start()
    yield server
    server.close()


@contextmanager
def needed() -> Iterator[None]:
    """Around what needs a server's binaries: without them, skip on a laptop and fail in CI."""
    missing = ""
    try:
        yield
    except servers.ServerMissing as error:
        missing = str(error)
    # Outside the handler, so that the line stands alone, without the error that it repeats.
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds `offline:gpt2-micro`, made once per session."""
    from learning.models import base

    cache = tmp_path_factory.mktemp("cache")
    base.resolve("offline:gpt2-micro", None, cache, lambda message, fraction: None)
    return cache
