"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.federations import Federation, MakeFederation, federation
from tests.support.servers import Server


@pytest.fixture
def make_federation(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, redis_server: Server
) -> Iterator[MakeFederation]:
    """Function that configures a federation on the shared servers.

    The processes of the federation end with the test.
    """
    with ExitStack() as stack:

        def make(**sizes: int) -> Federation:
            own = federation(tmp_path, model_cache, rabbitmq.url, redis_server.url, **sizes)
            return stack.enter_context(own)

        yield make
