"""`fccl demo` on a terminal: its screen, the ways to leave it, and killed processes."""

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

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.slow,
]

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
    """Return a function that starts the demo of `f.toml` on a terminal."""
    (tmp_path / "f.toml").write_text(LASTING)
    args = ("demo", "--config", "f.toml", "--out", "runs/x")
    return partial(terminal, *args, directory=tmp_path, variables=variables, size=(120, 35))


def wait_for_screen(place: Terminal) -> None:
    """Wait until the screen shows a run with a task."""
    place.shows("healthy")
    place.shows("issued")


def assert_restored(place: Terminal) -> None:
    """Check that the terminal is as it was before."""
    assert place.raw.count(ENTERED) == place.raw.count(LEFT) == 1
    assert "\x1b[?25h" in place.raw.rpartition("\x1b[?25l")[2]  # the cursor is visible
    assert place.modes() == place.modes_before
    assert "Traceback" not in place.text


def test_the_screen_shows_the_run_and_after_q_the_last_lines_are_printed(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(PLAN)
    with start() as place:
        place.shows("2 clients with ")  # lines first; how many rows fit depends on the tokenizer
        assert ENTERED not in place.raw
        place.shows("healthy")
        place.shows("report: runs/x/report/report.md; press q to leave")
        assert LEFT not in place.raw  # it stays
        place.press("q")
        assert place.end() == 0
        assert_restored(place)
        assert "the plan is complete: version 2 of 2" in place.left
        assert "report: runs/x/report/report.md" in place.left
        assert "fccl tui --replay runs/x" in place.left
        assert "issued" not in place.left  # the screen has shown those


def test_ctrl_c_on_the_screen_ends_the_run_cleanly(start: Start) -> None:
    with start() as place:
        wait_for_screen(place)
        place.press(CTRL_C)
        assert place.end() == 10
        assert_restored(place)
        assert "stopped on request" in place.left
        assert "continue with --resume" in place.left


@pytest.mark.terminal
def test_after_q_and_l_the_run_prints_lines_and_ends_by_a_signal(start: Start) -> None:
    with start() as place:
        wait_for_screen(place)
        place.press("q")
        place.shows("This command runs the federation")
        assert LEFT not in place.raw
        place.press("l")
        place.shows("the run goes on and prints its events")
        assert_restored(place)
        place.signal(signal.SIGTERM)
        assert place.end() == 10
        assert "stopping: press Ctrl-C again" in place.left
        assert "stopped on request" in place.left


@pytest.mark.terminal
def test_q_can_stop_the_run(start: Start) -> None:
    with start() as place:
        wait_for_screen(place)
        place.press("q")
        place.shows("This command runs the federation")
        place.press("s")
        assert place.end() == 10
        assert_restored(place)
        assert "stopped on request" in place.left


@pytest.mark.terminal
def test_a_killed_federation_is_one_line_on_a_restored_terminal(start: Start) -> None:
    with start() as place:
        wait_for_screen(place)
        [federation] = place.children()
        os.kill(federation, signal.SIGKILL)
        assert place.end() == 1
        assert_restored(place)
        assert "killed by SIGKILL; continue with --resume" in place.left


@pytest.mark.terminal
def test_an_error_of_the_coordinator_closes_the_screen_with_its_line_and_code(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    with start() as place, commands(tmp_path, variables) as others:
        wait_for_screen(place)
        flags = ("--plain", "--config", "f.toml", "--out", "runs/x", "--resume")
        other = others.script("demo", *flags)  # takes the run over
        assert place.end() == 8
        other.kill()
        assert_restored(place)
        [line] = [line for line in place.left.splitlines() if line.startswith("fccl: ")]
        assert "another coordinator" in line


def test_a_killed_screen_leaves_a_restored_terminal_and_a_run_that_ends_cleanly(
    start: Start, tmp_path: Path
) -> None:
    with start() as place:
        wait_for_screen(place)
        announced = tmp_path / "runs/x/store.url"
        assert announced.exists()
        place.signal(signal.SIGKILL)
        # The federation's process says so, because the command itself has ended.
        message = "the screen was killed; the run ends cleanly"
        eventually(f"{message!r} in {place.text}", lambda: message in place.text)
        assert LEFT in place.raw
        modes = place.modes()[3]
        assert isinstance(modes, int) and modes & termios.ICANON and modes & termios.ECHO
        eventually("the run has ended", lambda: not announced.exists())


# Imported by the interpreter before anything else: an error in one of the two processes.
BROKEN = """\
import os, sys
child = "--child-of" in sys.orig_argv
if child and {in_child}:
    from coordinator.publish.store_publisher import StorePublisher as Part
elif not child and not {in_child}:
    from tui.panes.overview import OverviewPane as Part
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


def break_process(
    tmp_path: Path, variables: dict[str, str], child: bool, method: str
) -> dict[str, str]:
    """Return variables with which one of the two processes fails once the file `now` exists."""
    (tmp_path / "broken").mkdir()
    text = BROKEN.format(in_child=child, method=method)
    (tmp_path / "broken/sitecustomize.py").write_text(text)
    path = f"{tmp_path / 'broken'}{os.pathsep}{variables['PYTHONPATH']}"
    return variables | {"PYTHONPATH": path}


@pytest.mark.terminal
def test_an_unexpected_error_of_the_screen_is_one_line_and_the_run_goes_on(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    with start(variables=break_process(tmp_path, variables, False, "show")) as place:
        wait_for_screen(place)
        (tmp_path / "now").touch()
        place.shows("the run goes on and prints its events")
        assert_restored(place)
        assert "fccl: the screen failed (RuntimeError: no such luck)" in place.left
        assert "no such luck" in (tmp_path / "runs/x/demo.log").read_text()
        place.signal(signal.SIGINT)
        assert place.end() == 10


@pytest.mark.terminal
def test_an_unexpected_error_of_the_federation_is_one_line(
    start: Start, tmp_path: Path, variables: dict[str, str]
) -> None:
    with start(variables=break_process(tmp_path, variables, True, "publish_state")) as place:
        wait_for_screen(place)
        (tmp_path / "now").touch()
        assert place.end() == 1
        assert_restored(place)
        assert "fccl: RuntimeError: no such luck; see runs/x/demo.log" in place.left
        assert "Traceback" in (tmp_path / "runs/x/demo.log").read_text()


def test_lines_are_printed_where_the_variable_ci_is_set(
    start: Start, variables: dict[str, str]
) -> None:
    with start(variables=variables | {"CI": "true"}) as place:
        place.shows("issued")
        place.signal(signal.SIGINT)
        assert place.end() == 10
        assert ENTERED not in place.raw
        assert "stopping: press Ctrl-C again" in place.text
