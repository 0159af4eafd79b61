"""Fixtures of the live screen's tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.servers import PrivateRedis


@pytest.fixture
def run() -> str:
    """A run's name; its id is the same."""
    return "r" + uuid.uuid4().hex[:30]


@pytest.fixture
def own_redis() -> Iterator[PrivateRedis]:
    """A Redis that the test may stop."""
    server = PrivateRedis()
    server.start()
    yield server
    server.close()
