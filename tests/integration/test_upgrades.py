"""Runs of earlier releases go on over real servers, while their sites upgrade one by one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from common.protocol.invitation import encode
from tests.fixtures.make import MAIN, check_out
from tests.support.federations import Federation, check_applied_once
from tests.support.paths import ROOT
from tests.support.processes import commands, eventually
from tests.support.recorded_releases import LAST_WITH_SCHEMA1, SCHEMA1, change, unpack_release
from tests.support.servers import Server
from tests.unit.common.protocol.test_invitation import INVITATION

pytestmark = [pytest.mark.slow, pytest.mark.servers, pytest.mark.timeout(700)]
SLOW_START = 300.0


@pytest.fixture
def resumed(
    request: pytest.FixtureRequest, tmp_path: Path, rabbitmq: Server, redis_server: Server
) -> Iterator[Federation]:
    """Return what a release left; its servers are gone, and empty ones take their place."""
    # Another test may have gone on with the same run: its receipts are not those of this one.
    with Redis.from_url(redis_server.url) as store:
        store.flushall()
    run = unpack_release(request.param, tmp_path)
    with commands(tmp_path, variables(tmp_path, rabbitmq, redis_server)) as place:
        found = Federation(tmp_path, place, redis_server.url)
        found.run = run
        yield found


def variables(directory: Path, rabbitmq: Server, redis_server: Server) -> dict[str, str]:
    return {
        "FCCL_CACHE": str(directory / "cache"),
        "FCCL_BROKER__URL": rabbitmq.url,
        "FCCL_STORE__URL": redis_server.url,
    }


@pytest.mark.parametrize("resumed", SCHEMA1, indirect=True)
def test_coordinator_and_worker_of_this_release_finish_a_recorded_run(resumed: Federation) -> None:
    slots = resumed.run.parent / ".workers"
    (kept,) = [path.name for path in slots.glob("*/slots/0/updates/*")]
    coordinator, worker = resumed.coordinator("--resume"), resumed.worker()
    assert worker.end(SLOW_START) == 0, worker.err
    assert coordinator.end(SLOW_START) == 0, coordinator.err
    check_applied_once(resumed)
    task = kept.partition(".")[0]
    assert resumed.rows(f"SELECT 1 FROM accepted WHERE task_id = '{task}'")
    assert not list(slots.glob("*/slots/0/updates/*"))


@pytest.mark.parametrize("resumed", ["schema1_last"], indirect=True)
def test_an_old_worker_serves_this_coordinator_and_is_then_upgraded(
    resumed: Federation, tmp_path: Path, rabbitmq: Server, redis_server: Server
) -> None:
    code = old_code(LAST_WITH_SCHEMA1, tmp_path)
    coordinator = resumed.coordinator("--resume")

    def accepted() -> int:
        return len(resumed.rows("SELECT 1 FROM accepted"))

    before = accepted()
    environment = (
        os.environ | variables(tmp_path, rabbitmq, redis_server) | {"PYTHONPATH": str(code)}
    )
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "worker"], cwd=tmp_path, env=environment
    ) as old:
        try:
            eventually(
                "an update of the old worker",
                lambda: old.poll() is not None or accepted() > before,
                SLOW_START,
            )
        finally:
            old.send_signal(signal.SIGTERM)
    assert (old.returncode, accepted() > before) == (0, True)
    worker = resumed.worker()
    assert worker.end(SLOW_START) == 0, worker.err
    assert coordinator.end(SLOW_START) == 0, coordinator.err
    check_applied_once(resumed)


def test_an_old_worker_refuses_a_token_of_this_release_and_says_why(tmp_path: Path) -> None:
    code = old_code(LAST_WITH_SCHEMA1, tmp_path)
    token = encode(INVITATION.model_copy(update={"kinds": ("sft",)}))
    script = f"from common.protocol.invitation import decode; decode({token!r}, 0.0)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "format 2" in done.stderr.splitlines()[-1] and "fccl" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("resumed", ["schema1_last"], indirect=True)
def test_a_run_of_a_newer_release_is_refused_by_every_command(resumed: Federation) -> None:
    change(resumed.run, "CREATE TABLE gossip (a TEXT)")
    for words in (
        ("coordinator", "--resume", "--plain"), ("evaluate", "runs/old"),
        ("export", "runs/old", "out"), ("verify", "runs/old"),
    ):  # fmt: skip
        command = resumed.place.fork(*words)
        assert command.end() == 7
        assert "unknown table gossip; upgrade fccl here" in command.err
        assert len(command.err.splitlines()) == 1


def old_code(commit: str, directory: Path) -> Path:
    """Return the code of an earlier release."""
    known = subprocess.run(
        ["git", "cat-file", "-e", commit], cwd=ROOT, check=False, capture_output=True
    )
    if known.returncode:
        pytest.skip(f"this clone lacks the history of {commit}")
    return check_out(commit, directory / "code")
