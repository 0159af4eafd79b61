"""`fccl demo` on a terminal: the view, how it is left, and what is left when something dies."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import commands, eventually
from tests.support.terminal import ENTERED, LEFT, Terminal, terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

PLAN = """\
[model]
name = "offline:gpt2-micro"
max_length = 128
[data]
rows = 60
clients = 2
[[phase]]
versions = 2
local_steps = 2
batch_size = 4
[schedule]
concurrency = 2
buffer_size = 2
[samples]
prompts = 0
"""
LASTING = PLAN.replace("local_steps = 2", "local_steps = 100000")
CTRL_C = "\x03"

Start = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture
def variables(model_cache: Path) -> dict[str, str]:
    root = str(ROOT)
    return {"FCCL_CACHE": str(model_cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}


@pytest.fixture
def start(tmp_path: Path, variables: dict[str, str]) -> Start:
    """Starts the demo of `f.toml` on a terminal."""
    (tmp_path / "f.toml").write_text(LASTING)
    args = ("demo", "--config", "f.toml", "--out", "runs/x")
    return partial(terminal, *args, directory=tmp_path, variables=variables)


def viewed(place: Terminal) -> None:
    """Wait until the view shows a run with a task."""
    place.shows("healthy")
    place.shows("issued")


def restored(place: Terminal) -> None:
    """The terminal is as it was before."""
    assert place.raw.count(ENTERED) == place.raw.count(LEFT) == 1
    assert "\x1b[?25h" in place.raw.rpartition("\x1b[?25l")[2]  # the cursor is there
    assert place.modes() == place.modes_before
    assert "Traceback" not in place.text


def test_the_view_shows_the_run_and_its_report_and_q_leaves_the_usual_last_lines(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(PLAN)
    with start() as place:
        place.shows("2 clients with 41 training rows")  # lines first
        assert ENTERED not in place.raw
        place.shows("healthy")
        place.shows("report: runs/x/report/report.md; q leaves")
        assert LEFT not in place.raw  # it stays
        place.press("q")
        assert place.end() == 0
        restored(place)
        assert "the plan is complete: version 2 of 2" in place.left
        assert "report: runs/x/report/report.md" in place.left
        assert "fccl tui --replay runs/x" in place.left
        assert "issued" not in place.left  # the view has shown those


def test_ctrl_c_in_the_view_ends_the_run_cleanly(start: Start) -> None:
    with start() as place:
        viewed(place)
        place.press(CTRL_C)
        assert place.end() == 10
        restored(place)
        assert "stopped on request" in place.left
        assert "continue with --resume" in place.left


@pytest.mark.terminal
def test_q_asks_and_the_run_can_go_on_in_lines_and_end_by_a_signal(start: Start) -> None:
    with start() as place:
        viewed(place)
        place.press("q")
        place.shows("The run belongs to this command")
        assert LEFT not in place.raw
        place.press("l")
        place.shows("the run goes on, in lines")
        restored(place)
        place.signal(signal.SIGTERM)
        assert place.end() == 10
        assert "stopping: press Ctrl-C again" in place.left
        assert "stopped on request" in place.left


@pytest.mark.terminal
def test_q_can_stop_the_run(start: Start) -> None:
    with start() as place:
        viewed(place)
        place.press("q")
        place.shows("The run belongs to this command")
        place.press("s")
        assert place.end() == 10
        restored(place)
        assert "stopped on request" in place.left


@pytest.mark.terminal
def test_a_federation_that_is_killed_is_one_line_on_a_sane_terminal(start: Start) -> None:
    with start() as place:
        viewed(place)
        [federation] = place.children()
        os.kill(federation, signal.SIGKILL)
        assert place.end() == 1
        restored(place)
        assert "ended by SIGKILL; go on with --resume" in place.left


@pytest.mark.terminal
def test_an_error_of_the_coordinator_closes_the_view_with_its_line_and_code(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    with start() as place, commands(tmp_path, variables) as others:
        viewed(place)
        flags = ("--plain", "--config", "f.toml", "--out", "runs/x", "--resume")
        other = others.script("demo", *flags)  # takes the run over
        assert place.end() == 8
        other.kill()
        restored(place)
        [line] = [line for line in place.left.splitlines() if line.startswith("fccl: ")]
        assert "another coordinator" in line


def test_a_view_that_is_killed_leaves_a_sane_terminal_and_a_run_that_ends_cleanly(
    start: Start, tmp_path: Path
) -> None:
    with start() as place:
        viewed(place)
        announced = tmp_path / "runs/x/store.url"
        assert announced.exists()
        place.signal(signal.SIGKILL)
        # The one that is left says so: the command itself has ended.
        said = "the view was killed; the run ends cleanly"
        eventually(f"{said!r} in {place.text}", lambda: said in place.text)
        assert LEFT in place.raw
        modes = place.modes()[3]
        assert isinstance(modes, int) and modes & termios.ICANON and modes & termios.ECHO
        eventually("the run has ended", lambda: not announced.exists())


# Imported by the interpreter before anything else: a mistake of ours, in one of the two processes.
BROKEN = """\
import os, sys
told = "--told" in sys.orig_argv
if told and {there}:
    from coordinator.publish.store_publisher import StorePublisher as Part
elif not told and not {there}:
    from tui.panes.overview import Overview as Part
else:
    Part = None
if Part is not None:
    before = Part.{method}
    def fail(*args, **kwargs):
        if os.path.exists("now"):
            raise RuntimeError("no such luck")
        return before(*args, **kwargs)
    Part.{method} = fail
"""


def broken(tmp_path: Path, variables: dict[str, str], there: bool, method: str) -> dict[str, str]:
    (tmp_path / "broken").mkdir()
    text = BROKEN.format(there=there, method=method)
    (tmp_path / "broken/sitecustomize.py").write_text(text)
    path = f"{tmp_path / 'broken'}{os.pathsep}{variables['PYTHONPATH']}"
    return variables | {"PYTHONPATH": path}


@pytest.mark.terminal
def test_a_mistake_in_the_view_is_one_line_and_the_run_goes_on(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    with start(variables=broken(tmp_path, variables, False, "show")) as place:
        viewed(place)
        (tmp_path / "now").touch()
        place.shows("the run goes on, in lines")
        restored(place)
        assert "fccl: the view has failed (RuntimeError: no such luck)" in place.left
        assert "no such luck" in (tmp_path / "runs/x/demo.log").read_text()
        place.signal(signal.SIGINT)
        assert place.end() == 10


@pytest.mark.terminal
def test_a_mistake_in_the_federation_is_one_line(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    with start(variables=broken(tmp_path, variables, True, "publish_state")) as place:
        viewed(place)
        (tmp_path / "now").touch()
        assert place.end() == 1
        restored(place)
        assert "fccl: RuntimeError: no such luck; see runs/x/demo.log" in place.left
        assert "Traceback" in (tmp_path / "runs/x/demo.log").read_text()


def test_where_ci_is_set_there_are_lines(start: Start, variables: dict[str, str]) -> None:
    with start(variables=variables | {"CI": "true"}) as place:
        place.shows("issued")
        place.signal(signal.SIGINT)
        assert place.end() == 10
        assert ENTERED not in place.raw
        assert "stopping: press Ctrl-C again" in place.text
