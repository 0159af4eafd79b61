"""Test that kills every container of a federation during a run and checks that nothing is lost.

    python -m tests.compose.run [--build] [--keep]

It needs a Docker engine and nothing else, and prints a line for each step. The exit code is 0 if
the run completed with every accepted update applied once, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.compose.engine import LONG, Failed, Project, docker, say, until
from tests.compose.journal import check_applied_once

VERSIONS = 30  # of federation.toml
IMAGE = "fccl:local"
SERVICES = ("worker", "redis", "rabbitmq", "coordinator")


def main() -> int:
    """Run the test, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.compose.run")
    parser.add_argument("--build", action="store_true", help="Build the image in any case.")
    parser.add_argument("--keep", action="store_true", help="Keep containers and files.")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="fccl-compose-"))
    directory.chmod(0o755)
    try:
        project = Project(directory, f"fccl-test-{secrets.token_hex(3)}")
    except Failed as failed:
        say(f"compose: {failed}")
        return 1
    try:
        _scenario(project, options.build)
    except Failed as failed:
        project.compose("logs", "--no-color", "--tail", "30")
        say(f"FAILED: {failed}")
        say(_tail(project.log, 160))
        return 1
    finally:
        if options.keep:
            say(f"kept: {directory}")
        else:
            project.compose("down", "--volumes", "--timeout", "5")
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _scenario(project: Project, build: bool) -> None:
    say(f"{'what':<44} {'seconds':>8} {'version':>8}")
    if build or not docker("images", "--quiet", IMAGE):
        _line(project, "the image is built", lambda: project.must("build"))
    _line(project, "up, to the first version", lambda: _begin(project))
    for service in SERVICES:
        text = f"{service}: process killed, policy restarts"
        _line(project, text, partial(_crash, project, service))
    for service in SERVICES:
        text = f"{service}: docker kill, then up"
        _line(project, text, partial(_kill, project, service))
    _line(project, "stop: coordinator 10, workers 0", lambda: _stop(project))
    _line(project, "up, Ctrl-C, the same", lambda: _interrupt(project))
    end = ("up", "--exit-code-from", "coordinator")
    _line(project, "up --exit-code-from coordinator: 0", lambda: project.must(*end))
    report = project.run / "report" / "report.md"
    written = until("a report", lambda: report.exists() and report.stat().st_mtime_ns, 1.0)
    _line(project, "the same again: 0", lambda: project.must(*end))
    if report.stat().st_mtime_ns != written:
        raise Failed("the report of a finished run was written again")
    _owner(project)
    counted = check_applied_once(project.run)
    if counted["versions"] != VERSIONS:
        raise Failed(f"{counted['versions']} versions instead of {VERSIONS}")
    say(
        "every accepted update was applied once: "
        + ", ".join(f"{n} {k}" for k, n in counted.items())
    )


def _line(project: Project, what: str, do: Callable[[], None]) -> None:
    """Run one step, and print a line when it has succeeded."""
    begun = time.monotonic()
    do()
    say(f"{what:<44} {time.monotonic() - begun:>8.1f} {project.version():>8}")


def _begin(project: Project) -> None:
    project.must("up", "-d")
    project.reaches(1)


def _crash(project: Project, service: str) -> None:
    """Kill every process but the init, as when memory runs out."""
    _check_unfinished(project)
    container = project.container(service)
    before = project.restarts(container)
    docker("exec", "--user", "0", container, "sh", "-c", "kill -9 -1")
    until(f"{service} is restarted", lambda: project.restarts(container) > before)
    _check_progress(project)


def _kill(project: Project, service: str) -> None:
    """Kill the container, which the engine leaves dead until `up`."""
    _check_unfinished(project)
    container = project.container(service)
    docker("kill", "--signal", "KILL", container)
    until(f"{service} is dead", lambda: not project.state(container)["Running"])
    project.must("up", "-d")
    _check_progress(project)


def _check_unfinished(project: Project) -> None:
    if project.version() >= VERSIONS - 2:
        raise Failed("the run was over too soon: raise `versions` in tests/compose/federation.toml")


def _check_progress(project: Project) -> None:
    project.reaches(project.version() + 1)


def _stop(project: Project) -> None:
    _check_unfinished(project)
    containers = {name: project.container(name) for name in ("coordinator", "worker")}
    project.must("stop")
    codes = {name: project.state(each)["ExitCode"] for name, each in containers.items()}
    if codes != {"coordinator": 10, "worker": 0}:
        raise Failed(f"not a clean stop: exit codes {codes}")


def _interrupt(project: Project) -> None:
    """Run `up` in the foreground, and press Ctrl-C after the next version."""
    before = project.version()
    up = project.begin("up")
    project.reaches(before + 1)
    up.send_signal(signal.SIGINT)
    until("up ends", lambda: up.poll() is not None, LONG)
    containers = [project.container(name) for name in ("coordinator", "worker")]
    until("all are stopped", lambda: not any(project.state(c)["Running"] for c in containers))
    codes = [project.state(container)["ExitCode"] for container in containers]
    if codes != [10, 0]:
        raise Failed(f"not a clean stop: exit codes {codes}")


def _owner(project: Project) -> None:
    """Check that files belong to the owner of the folder, and never to root."""
    owners = {path.stat().st_uid for path in (project.run, *project.run.rglob("*"))}
    if 0 in owners or (os.getuid() and owners != {os.getuid()}):
        raise Failed(f"files of the run belong to the users {owners}")


def _tail(path: Path, lines: int) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
