"""Test of another organisation's worker, in a container and a network of its own, over TLS.

    python -m tests.compose.sites [--keep]

It is invited, joins, contributes, stops, starts again, and is revoked; a second machine with the
same token is refused. The test needs a Docker engine and the image `fccl:local`, which
tests.compose.run builds.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.compose.engine import CONFIG, Failed, Project, docker, free_port, say, until
from tests.compose.journal import check_applied_once

IMAGE = "fccl:local"
HOST = "broker.test"
SITE = "hospital-a"
TLS = "docker-compose.tls.yml"


def main() -> int:
    """Run the test, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.compose.sites")
    parser.add_argument("--keep", action="store_true", help="Keep containers and files.")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="fccl-sites-"))
    directory.chmod(0o755)
    name = f"fccl-test-{secrets.token_hex(3)}"
    try:
        project = _project(directory, name)
    except Failed as failed:
        say(f"compose: {failed}")
        return 1
    hospital, thief = Machine(f"{name}-hospital", directory), Machine(f"{name}-thief", directory)
    try:
        _scenario(project, hospital, thief)
    except Failed as failed:
        project.compose("logs", "--no-color", "--tail", "30")
        say("\n".join(project.log.read_text(errors="replace").splitlines()[-100:]))
        for machine in (hospital, thief):
            say(f"{machine.name}:\n{machine.said()}")
        say(f"FAILED: {failed}")
        return 1
    finally:
        if options.keep:
            say(f"kept: {directory}")
        else:
            for machine in (hospital, thief):
                machine.remove()
            project.compose("down", "--volumes", "--timeout", "5")
            shutil.rmtree(directory, ignore_errors=True)
    return 0


class Machine:
    """A container on no network of the federation, which knows a host name and two ports."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory

    def begin(self, token: str) -> None:
        """Start a worker with a token, and with rows that no other worker has."""
        docker(
            *("run", "--detach", "--init", "--name", self.name),
            *("--add-host", f"{HOST}:host-gateway"),
            *("--volume", f"{self.name}:/state", "--volume", f"{self._directory}/rows:/rows:ro"),
            *("--env", f"FCCL_JOIN={token}", "--env", "FCCL_STATE=/state"),
            *(IMAGE, "fccl", "worker", "--data", "/rows/mine.jsonl"),
        )

    def stop(self) -> None:
        """Stop it, and check that it ended by itself."""
        docker("stop", "--time", "60", self.name)
        self.ends(0)

    def start(self) -> None:
        """Start it again with the same command, the token included."""
        docker("start", self.name)

    def ends(self, code: int) -> None:
        """Wait until it has ended, and check the exit code."""
        until(f"{self.name} ends", lambda: not self._state()["Running"])
        if (found := self._state()["ExitCode"]) != code:
            raise Failed(f"{self.name} ended with {found} instead of {code}")

    def said(self) -> str:
        """Return the last lines that it has printed."""
        try:
            return docker("logs", "--tail", "12", self.name, both=True)
        except Failed:
            return ""

    def says(self, text: str) -> None:
        """Wait until a text is in its output."""
        until(f"{self.name} says {text!r}", lambda: text in self._all())

    def remove(self) -> None:
        """Remove container and volume."""
        for words in (("rm", "--force", self.name), ("volume", "rm", "--force", self.name)):
            try:
                docker(*words)
            except Failed:
                continue

    def _state(self) -> dict[str, object]:
        return dict(json.loads(docker("inspect", "--format", "{{json .State}}", self.name)))

    def _all(self) -> str:
        return docker("logs", self.name, both=True)


def _project(directory: Path, name: str) -> Project:
    """Return the servers with TLS, certificates made by the image, and a plan that does not end."""
    plan = directory / "federation.toml"
    plan.write_text(CONFIG.read_text().replace("versions = 20", "versions = 5000"))
    (directory / "rows").mkdir()
    rows = [
        {"instruction": f"Which floor is ward {i} on?", "output": f"Ward {i} is on floor {i % 7}."}
        for i in range(40)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "rows" / "mine.jsonl").write_text(text)
    docker(
        *("run", "--rm", "--user", f"{os.getuid()}", "--entrypoint", "fccl"),
        *("--volume", f"{directory}:/out", IMAGE),
        *("certs", "--dir", "/out/certs", "--host", HOST),
    )
    return Project(
        directory,
        name,
        plan,
        (TLS,),
        {
            "FCCL_BROKER_PASSWORD": secrets.token_hex(16),
            "FCCL_STORE_PASSWORD": secrets.token_hex(16),
            "FCCL_HOST": HOST,
            "FCCL_CERTS": str(directory / "certs"),
            "FCCL_BROKER_TLS_PORT": str(free_port()),
            "FCCL_STORE_TLS_PORT": str(free_port()),
            "FCCL_MANAGEMENT_PORT": str(free_port()),
        },
    )


def _scenario(project: Project, hospital: Machine, thief: Machine) -> None:
    token = ""

    def invite() -> None:
        nonlocal token
        token = project.output("run", "--rm", "-T", "coordinator", "fccl", "invite", SITE)

    say(f"{'what':<56} {'seconds':>8} {'version':>8}")
    _line(project, "servers with TLS, coordinator, workers, first version", lambda: _up(project))
    _line(project, "fccl invite hospital-a", invite)
    _line(project, "a machine elsewhere joins over TLS", lambda: _join(hospital, token))
    _line(project, "it contributes", lambda: _contributes(project))
    _line(project, "it is stopped: exit 0", hospital.stop)
    _line(project, "it is started again and contributes", lambda: _again(project, hospital))
    _line(project, "another machine with the same token: exit 9", lambda: _steal(thief, token))
    _line(project, "fccl revoke: it ends with exit 9", lambda: _revoke(project, hospital))
    _line(project, "the federation continues", lambda: project.reaches(project.version() + 3))
    _line(project, "stop", lambda: project.must("stop"))
    counted = check_applied_once(project.run)
    if token in project.log.read_text(errors="replace"):
        raise Failed("the token is in a log")
    say(
        f"every accepted update was applied once, {len(_updates(project))} of them from {SITE}: "
        + ", ".join(f"{n} {k}" for k, n in counted.items())
    )
    say(f"what {SITE} printed:\n{hospital.said()}")
    say(f"what the other machine printed:\n{thief.said()}")


def _line(project: Project, what: str, do: Callable[[], object]) -> None:
    begun = time.monotonic()
    do()
    say(f"{what:<56} {time.monotonic() - begun:>8.1f} {project.version():>8}")


def _up(project: Project) -> None:
    project.must("up", "-d")
    project.reaches(1)


def _join(hospital: Machine, token: str) -> None:
    hospital.begin(token)
    hospital.says(f"{SITE} takes part")


def _updates(project: Project) -> list[str]:
    """Return the tasks of the site whose updates were applied."""
    lines = (project.run / "client_metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [m["task_id"] for m in map(json.loads, lines) if m["client_id"] == SITE]


def _contributes(project: Project) -> None:
    before = len(_updates(project))
    until(f"updates of {SITE}", lambda: len(_updates(project)) >= before + 2)


def _again(project: Project, hospital: Machine) -> None:
    hospital.start()
    _contributes(project)


def _steal(thief: Machine, token: str) -> None:
    thief.begin(token)
    thief.ends(9)
    thief.says(f"token of site {SITE} was used on")


def _revoke(project: Project, hospital: Machine) -> None:
    project.output("run", "--rm", "-T", "coordinator", "fccl", "revoke", SITE)
    hospital.ends(9)
    hospital.says("revoked")


if __name__ == "__main__":
    sys.exit(main())
