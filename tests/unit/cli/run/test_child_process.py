"""A child process performs a task; its progress, result and errors reach the coordinator."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.console import Output
from cli.run import child_process
from cli.run.child_process import ChildProcess, run_task
from common.config.config import FederationConfig
from common.errors import FcclError, RunError
from tests.support.processes import eventually

PROGRAM = """
import os, sys, time
from pathlib import Path
from cli.run import child_main

def reporting(request, channel):
    channel.output.progress("making a model", 0.5)
    print("a library prints")
    channel.output.print("3 rows can be used")
    return {"sum": request["a"] + request["b"]}

def waiting(request, channel):
    try:  # first: the parent may close the child as soon as it sees the file
        Path(request["started"]).touch()
        time.sleep(60)
    finally:
        Path(request["cleaned_up"]).touch()

def dying(request, channel):
    os.kill(os.getpid(), 9)

child_main.TASKS.update(reporting=reporting, waiting=waiting, dying=dying)
child_main.main(sys.argv[1])
"""
PARENT = """
import sys, time
from cli.run.child_process import ChildProcess
child = ChildProcess("samples", {})
child.start()
print(child._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let children perform the tasks above."""

    def open_process(task: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    monkeypatch.setattr(child_process, "open_process", open_process)


@pytest.mark.usefixtures("own_tasks")
def test_progress_and_lines_are_shown_and_the_result_returned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_task("reporting", {"a": 1, "b": 2}, Output(plain=True)) == {"sum": 3}
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["making a model: 50%", "3 rows can be used"]
    assert shown.err == "a library prints\n"


def test_an_error_of_the_task_keeps_its_class_text_and_remedy(tmp_path: Path) -> None:
    request = {"directory": str(tmp_path / "none"), "base_path": "", "settings": {}, "version": 0}
    with pytest.raises(RunError) as caught:
        run_task("samples", request, Output(plain=True))
    assert "holds no run" in caught.value.what
    assert caught.value.remedy == "name a directory under runs/"


def test_an_unexpected_error_is_one_line_after_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(FcclError, match="KeyError: 'no such task'") as caught:
        run_task("no such task", {}, Output(plain=True))
    assert caught.value.exit_code == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.usefixtures("own_tasks")
def test_a_killed_child_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RunError, match="dying ended early: killed by SIGKILL") as caught:
        run_task("dying", {}, Output(plain=True))
    assert "memory" in caught.value.remedy


@pytest.mark.usefixtures("own_tasks")
def test_a_child_that_is_closed_cleans_up(tmp_path: Path) -> None:
    started, cleaned_up = tmp_path / "started", tmp_path / "cleaned up"
    child = ChildProcess("waiting", {"started": str(started), "cleaned_up": str(cleaned_up)})
    child.start()
    eventually("the task has started", started.exists)
    child.close()
    assert cleaned_up.exists()
    assert not child.running


def test_no_child_outlives_a_coordinator_that_was_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert _lives(pid)
        parent.send_signal(signal.SIGKILL)
    eventually("the child ends", lambda: not _lives(pid))


def test_a_command_never_blocks_and_is_refused_after_the_end() -> None:
    child = ChildProcess("no such task", {})
    assert not child.send({"offer": 1})
    child.start()
    child.close()
    assert not child.send({"offer": 1})


def test_a_configuration_is_the_same_in_the_child() -> None:
    config = FederationConfig()
    fields = config.model_dump(mode="json", exclude={"broker", "store", "operations"})
    assert FederationConfig.model_validate(fields) == config


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
