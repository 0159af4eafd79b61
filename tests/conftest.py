"""Fixtures that several suites share: the servers, started once per session when first asked for.

A missing server skips the tests that need it on a laptop, and fails them where `CI=true`: a
build that quietly tested nothing would say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests import servers


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


def _serve(start: Callable[[], servers.Server]) -> Iterator[servers.Server]:
    try:
        server = start()
    except servers.ServerMissing as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    yield server
    server.close()
