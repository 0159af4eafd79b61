"""`fccl demo` on a terminal: lines, then the screen of `fccl tui`, then lines again.

The federation runs in a process of its own (`cli/demo/child.py`). So neither can slow the other by
Python's lock, nor print over its screen, nor take it along when it dies; and the screen is as much
at home as in a second terminal. This process loads no torch.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import click
from pydantic import ValidationError
from rich.console import Console

from cli.console import Output
from cli.demo.child import Child, Told
from cli.exit_codes import INTERRUPTED
from cli.signals import STOPPING_MESSAGE
from common.protocol.feed import Event
from common.store.store import Store, connect

if TYPE_CHECKING:
    from tui.demo_app import DemoStatus

POLL_S = 0.1
TIMEOUT_S = 2.0  # for one answer of the store; the screen goes on meanwhile
COLUMNS, ROWS = 60, 16  # below, there is nothing to see
LOG = "demo.log"
STARTING = "starting the federation: PyTorch takes some seconds to load"
STOPPING = "stopping: what has come in is committed; Ctrl-C again ends at once"


def fits(environment: Mapping[str, str], keys: IO[Any], drawn: IO[Any]) -> bool:
    """Whether somebody sits at a terminal on which a screen can be drawn.

    Args:
        environment: The process's variables.
        keys: Standard input.
        drawn: Standard output.
    """
    if not (keys.isatty() and drawn.isatty()):
        return False
    if environment.get("CI") or environment.get("TERM", "dumb") == "dumb":
        return False
    size = os.get_terminal_size(drawn.fileno())
    return size.columns >= COLUMNS and size.lines >= ROWS


def serve(arguments: Sequence[str], output: Output) -> int:
    """Run the federation and show it; returns the exit code.

    Args:
        arguments: Of `fccl`, for the process that runs it.
        output: For what is told in lines.
    """
    child = Child(arguments)
    try:
        return _Session(child, output).serve()
    finally:
        child.release()


class _Session:
    """One run at one terminal. All of it is on the main thread."""

    def __init__(self, child: Child, output: Output) -> None:
        self._child, self._output = child, output
        self._directory: Path | None = None
        self._url = ""
        self._screen = False  # is up, or about to be: nothing may be printed
        self._kept: list[Told] = []  # to be printed once it is down
        self._noise = 0  # lines of libraries, put aside meanwhile
        self._summary: str | None = None  # of a run that is over
        self._stopping = False
        self._gone = False  # who looks has left
        self._error: Told | None = None

    def serve(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._output.print(STARTING)
        while self._going() and self._directory is None:
            time.sleep(POLL_S)
        if self._directory is not None:
            self._output.end_progress()
            self._look(self._directory)
        while self._going():
            if self._summary is not None:
                self._child.release()
            time.sleep(POLL_S)
        self._output.end_progress()
        return self._conclude()

    # What the screen asks (`tui.demo_app.Host`)

    def status(self) -> DemoStatus:
        """How it stands with the process behind the screen."""
        from tui.demo_app import DemoStatus

        going = self._going()
        over = self._summary is not None
        if not going or self._error or self._gone or (over and self._stopping):
            return DemoStatus(close=True)
        if self._summary is not None:
            return DemoStatus("note", f"{self._summary}; q leaves", over=True)
        return DemoStatus("warning", STOPPING) if self._stopping else DemoStatus()

    def stop(self) -> None:
        """What Ctrl-C does: end cleanly, then at once; of a run that is over, stop looking."""
        if self._summary is not None:
            self._gone = True
        else:
            self._stopping = True
            self._child.interrupt()

    def leave(self) -> None:
        """Go on in lines."""
        self._gone = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _going(self) -> bool:
        """Take in what was told; whether there may be more."""
        going = self._child.code is None
        for told in self._child.told():
            self._heard(told)
        return going

    def _heard(self, told: Told) -> None:
        match told.kind:
            case "announced":
                self._url, self._directory = told.message, Path(str(told.more.get("directory")))
                self._screen = True
            case "ended":
                self._summary = told.message
            case "error" | "crash":
                self._error = self._error or told
            case "stdout" | "stderr" if self._screen:
                if told.message != STOPPING_MESSAGE:
                    self._noise += 1
                    self._log(told.message)
            case "event" if self._screen:
                pass
            case _ if self._screen:
                self._kept.append(told)
            case _:
                self._print(told)

    def _print(self, told: Told) -> None:
        match told.kind:
            case "text":
                self._output.print(told.message)
            case "document":
                self._output.print_markdown(told.message)
            case "event":
                self._event(told)
            case "progress":
                self._output.progress(told.message, float(told.more.get("progress", 0.0)))
            case "progressed":
                self._output.end_progress()
            case _:
                click.echo(told.message, err=True)

    def _event(self, told: Told) -> None:
        try:
            self._output.print_event(Event.model_validate(told.more.get("event")))
        except ValidationError:  # cannot be: the other side is this program
            self._output.print(told.message)

    def _log(self, text: str) -> None:
        assert self._directory is not None
        with (self._directory / LOG).open("a", encoding="utf-8") as log:
            log.write(text + "\n")

    def _look(self, directory: Path) -> None:
        """Show the screen, until somebody leaves it or there is nothing behind it; say the rest."""
        if self._error is None and self._child.code is None:
            self._draw(directory)
        self._screen = False
        if self._noise:
            click.echo(f"{self._noise} lines of libraries are in {directory / LOG}", err=True)
        for told in self._kept:
            self._print(told)
        if self._summary is None and self._error is None and self._child.code is None:
            asked = (
                STOPPING_MESSAGE if self._stopping else "the run goes on, in lines; Ctrl-C stops it"
            )
            click.echo(asked, err=True)

    def _draw(self, directory: Path) -> None:
        from tui.data.command_sender import CommandSender
        from tui.data.reader import ReaderThread
        from tui.demo_app import DemoApp

        def connected() -> Store:
            return connect(self._url, TIMEOUT_S)

        app = DemoApp(ReaderThread(connected, directory.name), CommandSender(connected), self)
        trace = io.StringIO()
        app.error_console = Console(file=trace, width=120)  # it would be printed over the lines
        self._child.view(os.ttyname(sys.stdin.fileno()))
        try:
            app.run()
        finally:
            self._child.view(None)
        if app.failure is not None:
            self._log(trace.getvalue())
            name = type(app.failure).__name__
            what = f"fccl: the view has failed ({name}: {app.failure}); see {directory / LOG}"
            click.echo(what, err=True)

    def _conclude(self) -> int:
        code, error = self._child.code, self._error
        assert code is not None
        if error is not None and error.kind == "error":
            click.echo(error.message, err=True)
        elif error is not None:
            self._crashed(error)
        elif code < 0:
            name = signal.Signals(-code).name
            what = f"fccl: the process of the federation was ended by {name}"
            click.echo(f"{what}; go on with --resume" if self._directory else what, err=True)
        if code >= 0:
            return code
        return INTERRUPTED if self._stopping else 1

    def _crashed(self, error: Told) -> None:
        trace = str(error.more.get("traceback", ""))
        if self._directory is None:
            click.echo(trace or error.message, err=True)
            return
        self._log(trace)
        click.echo(f"fccl: {error.message}; see {self._directory / LOG}", err=True)
