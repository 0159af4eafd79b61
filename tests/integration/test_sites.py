"""Tests of invited sites over TLS: they join, contribute, leave, come back and are revoked."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.federations import check_applied_once, phase, plan, planned
from tests.support.inviting_federation import TLS_SECTIONS, InvitingFederation
from tests.support.processes import Command, Commands, commands, eventually
from tests.support.tls_servers import TlsServers

pytestmark = [pytest.mark.servers, pytest.mark.slow]


class Hospital:
    """Another organisation's machine: its own directory, state and cache, and a file of rows."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.rows = directory / "mine.jsonl"
        lines = [
            {"instruction": f"Name ward {i}.", "output": f"Ward {i} is on floor {i % 7}."}
            for i in range(40)
        ]
        self.rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
        environment = {
            "FCCL_STATE": str(directory / "state"),
            "FCCL_CACHE": str(directory / "cache"),
        }
        self._place = commands(directory, environment)
        self._commands: Commands = self._place.__enter__()

    def close(self) -> None:
        self._place.__exit__(None, None, None)

    def join(self, token: str, *flags: str, **variables: str) -> Command:
        return self.worker("--join", token, "--data", str(self.rows), *flags, **variables)

    def worker(self, *flags: str, **variables: str) -> Command:
        return self._commands.fork("worker", *flags, **variables)


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    found = Hospital(tmp_path / "hospital")
    yield found
    found.close()


@pytest.fixture
def headquarters(
    tmp_path: Path, tls_servers: TlsServers, model_cache: Path
) -> Iterator[InvitingFederation]:
    directory = tmp_path / "headquarters"
    directory.mkdir()
    found = tls_servers
    text = plan(phase("sft", 400, "local_steps = 2"), clients=2)
    text += TLS_SECTIONS.format(ca=found.ca, management=found.management)
    with planned(
        directory, model_cache, found.amqps, found.rediss, text, found.store
    ) as federation:
        yield InvitingFederation(directory, federation.place, found.store)


def test_a_site_joins_contributes_leaves_comes_back_and_is_revoked(
    headquarters: InvitingFederation, hospital: Hospital
) -> None:
    coordinator = headquarters.coordinator()
    local = headquarters.worker()
    headquarters.reaches(1)

    token = headquarters.invite("hospital-a")
    first = hospital.join(token)
    first.says("hospital-a takes part")
    eventually("an update of it", lambda: headquarters.accepted_from("hospital-a") > 1)
    first.signal(signal.SIGTERM)
    assert first.end() == 0

    again = hospital.worker("--site", "hospital-a")
    before = headquarters.accepted_from("hospital-a")
    eventually("another", lambda: headquarters.accepted_from("hospital-a") > before)

    revoke = headquarters.command("revoke", "hospital-a")
    assert revoke.end() == 0, revoke.err
    assert again.end() == 9
    assert "revoked" in again.err
    version = headquarters.version()
    headquarters.reaches(version + 2)
    assert headquarters.joined() == []

    coordinator.signal(signal.SIGTERM)
    assert coordinator.end() == 10
    local.kill()
    check_applied_once(headquarters)
    assert token not in coordinator.out + coordinator.err + first.out + first.err
