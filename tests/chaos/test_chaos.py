"""A few faults of every sort in one small federation; `make chaos` runs many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.campaign import run_seed
from tests.chaos.federation import Servers
from tests.chaos.plan import draw
from tests.support.servers import PrivateRabbitMQ, PrivateRedis

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(1200)]

SEED, FAULTS = 1, 12


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    servers = Servers(PrivateRabbitMQ(), PrivateRedis())
    yield servers
    servers.close()


def test_a_federation_whose_parts_fail_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, own_servers: Servers, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCCL_CACHE", str(model_cache))
    plan = draw(SEED, FAULTS)
    _, record = run_seed(plan, tmp_path / "run", own_servers, "", print)
    assert record.problems == ()
    assert record.faults >= FAULTS // 2
