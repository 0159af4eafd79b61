"""`fccl coordinator` with default settings: torch is in its child processes, never in its own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cli.exit_codes import STOPPED
from common.config.config import SamplesConfig
from tests.support.federations import federation
from tests.support.processes import eventually
from tests.support.servers import Server

pytestmark = pytest.mark.servers


def test_a_live_coordinator_has_no_torch_in_its_process(
    tmp_path: Path, model_cache: Path, rabbitmq: Server, redis_server: Server
) -> None:
    prompts = str(SamplesConfig().prompts)
    with federation(tmp_path, model_cache, rabbitmq.url, redis_server.url) as run:
        prepared = run.coordinator()
        eventually("the run is prepared and served", lambda: run.epoch() == 1)
        prepared.signal(signal.SIGTERM)
        assert prepared.end() == STOPPED

        coordinator = run.script("coordinator", "--resume", FCCL_SAMPLES__PROMPTS=prompts)
        eventually("the coordinator serves again", lambda: run.epoch() == 2)
        # The child with the live samples shows that this check can fail.
        eventually("a child loads torch", lambda: any(map(has_torch, children(coordinator.pid))))
        assert not has_torch(coordinator.pid)
        (child,) = children(coordinator.pid)
        coordinator.signal(signal.SIGTERM)
        assert coordinator.end() == STOPPED, coordinator.err
        eventually("the child ends", lambda: not Path(f"/proc/{child}").exists())


def has_torch(pid: int) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
