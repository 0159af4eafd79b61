"""`fccl demo` on a terminal: lines at first, then the screen of `fccl tui`, then lines again.

The federation runs in a process of its own (`cli/demo/process.py`): neither process slows the
other through Python's lock, prints over its screen or dies with it. This process loads no torch.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import click
from rich.console import Console

from cli.child_messages import ChildMessage, MessageKind
from cli.console import Output, can_draw
from cli.demo.child import LOG
from cli.demo.process import FederationProcess
from cli.exit_codes import INTERRUPTED
from cli.signals import STOPPING_MESSAGE
from common.protocol.feed import Event
from common.store.store import Store, connect

if TYPE_CHECKING:
    from tui.demo_app import DemoStatus

POLL_S = 0.1
STORE_TIMEOUT_S = 2.0  # for one answer; the screen is not blocked meanwhile
MIN_COLUMNS, MIN_ROWS = 60, 16
STARTING = "starting the federation; loading PyTorch takes some seconds"
STOPPING = "stopping: updates that have arrived are committed; Ctrl-C again ends at once"
CONTINUING = "the run goes on and prints its events; Ctrl-C stops it"


def can_show_screen(environment: Mapping[str, str], stdin: IO[Any], stdout: IO[Any]) -> bool:
    """Return whether standard input and output are a terminal that is large enough."""
    if not (stdin.isatty() and stdout.isatty()):
        return False
    if environment.get("CI") or not can_draw(environment):
        return False
    size = os.get_terminal_size(stdout.fileno())
    return size.columns >= MIN_COLUMNS and size.lines >= MIN_ROWS


def run_with_screen(arguments: Sequence[str], output: Output) -> int:
    """Run `fccl` with these arguments in another process, show it, and return the exit code."""
    process = FederationProcess(arguments)
    try:
        return _DemoSession(process, output).run()
    finally:
        process.release()


class _DemoSession:
    """One run at one terminal, all on the main thread. Implements `tui.demo_app.DemoCommand`."""

    def __init__(self, process: FederationProcess, output: Output) -> None:
        self._process, self._output = process, output
        self._started: tuple[str, Path] | None = None  # store and run directory
        self._summary: str | None = None  # of a run that is over
        self._error: ChildMessage | None = None
        self._screen_open = False  # nothing may be printed meanwhile
        self._held_back: list[ChildMessage] = []  # to print once the screen is closed
        self._progress = ""  # of the report that is being written
        self._stopping = False
        self._left = False  # the user has left the screen

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # without a terminal there is no screen
        self._output.print(STARTING)
        while self._poll() and self._started is None:
            time.sleep(POLL_S)
        if self._started is not None:
            self._output.end_progress()
            self._show_screen(*self._started)
        while self._poll():
            if self._summary is not None:
                self._process.release()
            time.sleep(POLL_S)
        self._output.end_progress()
        return self._conclude()

    def status(self) -> DemoStatus:
        """Return what the screen should show, or that it should close."""
        from tui.demo_app import DemoStatus

        running = self._poll()
        over = self._summary is not None
        if not running or self._error or self._left or (over and self._stopping):
            return DemoStatus(close=True)
        if over:
            return DemoStatus("note", f"{self._summary}; press q to leave", over=True)
        if self._stopping:
            return DemoStatus("warning", STOPPING)
        return DemoStatus("note", self._progress) if self._progress else DemoStatus()

    def stop(self) -> None:
        """End the run cleanly, the second time at once; close the screen of a finished run."""
        if self._summary is not None:
            self._left = True
            return
        if self._started is not None and not self._screen_open and not self._stopping:
            click.echo(STOPPING_MESSAGE, err=True)
        self._stopping = True
        self._process.interrupt()

    def leave(self) -> None:
        self._left = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop()

    def _poll(self) -> bool:
        """Handle new messages, and return whether more may come."""
        running = self._process.exit_code is None
        for message in self._process.messages():
            self._handle(message)
        return running

    def _handle(self, message: ChildMessage) -> None:
        match message.kind:
            case MessageKind.STARTED:
                self._started = message.fields["url"], Path(message.fields["directory"])
                self._screen_open = True
            case MessageKind.FINISHED:
                self._summary = message.text
            case MessageKind.ERROR:
                self._error = self._error or message
            case MessageKind.EVENT if self._screen_open:
                pass  # the screen shows it
            case MessageKind.PROGRESS if self._screen_open:
                self._progress = f"{message.text}: {float(message.fields['progress']):.0%}"
            case MessageKind.PROGRESS_END if self._screen_open:
                self._progress = ""
            case _ if self._screen_open:
                self._held_back.append(message)
            case _:
                self._print(message)

    def _print(self, message: ChildMessage) -> None:
        match message.kind:
            case MessageKind.TEXT | MessageKind.STDERR:
                self._output.print(message.text)
            case MessageKind.MARKDOWN:
                self._output.print_markdown(message.text)
            case MessageKind.EVENT:
                self._output.print_event(Event.model_validate(message.fields["event"]))
            case MessageKind.PROGRESS:
                self._output.progress(message.text, float(message.fields["progress"]))
            case MessageKind.PROGRESS_END:
                self._output.end_progress()

    def _show_screen(self, url: str, directory: Path) -> None:
        """Show the screen until it closes, then print what was held back."""
        if self._is_running():
            self._run_app(url, directory)
        self._screen_open = False
        log = directory / LOG
        printed = set(log.read_text(encoding="utf-8", errors="replace").splitlines())
        if printed - {STOPPING_MESSAGE, ""}:
            click.echo(f"output of libraries is in {log}", err=True)
        for message in self._held_back:
            self._print(message)
        if self._summary is None and self._is_running():
            click.echo(STOPPING_MESSAGE if self._stopping else CONTINUING, err=True)

    def _is_running(self) -> bool:
        return self._error is None and self._process.exit_code is None

    def _run_app(self, url: str, directory: Path) -> None:
        from tui.data.command_sender import CommandSender
        from tui.data.reader import ReaderThread
        from tui.demo_app import DemoApp

        def open_store() -> Store:
            return connect(url, STORE_TIMEOUT_S)

        app = DemoApp(ReaderThread(open_store, directory.name), CommandSender(open_store), self)
        trace = io.StringIO()
        app.error_console = Console(file=trace, width=120)  # by default it prints on the terminal
        app.run()
        if app.failure is not None:
            with contextlib.suppress(OSError), (directory / LOG).open("a", encoding="utf-8") as log:
                log.write(trace.getvalue())
            error = f"{type(app.failure).__name__}: {app.failure}"
            click.echo(f"fccl: the screen failed ({error}); see {directory / LOG}", err=True)

    def _conclude(self) -> int:
        """Print the error, if any, and return the exit code."""
        code, error = self._process.exit_code, self._error
        assert code is not None
        log = self._started[1] / LOG if self._started else None
        if log is not None and log.stat().st_size == 0:
            log.unlink()
        if error is not None:
            see_log = f"; see {log}" if code == 1 and log else ""
            click.echo(error.text + see_log, err=True)
        elif code < 0:
            line = f"fccl: the process of the federation was killed by {signal.Signals(-code).name}"
            click.echo(f"{line}; continue with --resume" if self._started else line, err=True)
        if code >= 0:
            return code
        return INTERRUPTED if self._stopping else 1
