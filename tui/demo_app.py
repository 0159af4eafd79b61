"""Screen of `fccl demo`, whose run was started by the same command and ends with it.

`q` asks what to do with the run, Ctrl-C stops it, and the top line names the report at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from textual.binding import Binding, BindingType

from tui.app import MonitorApp
from tui.banner import Level
from tui.data.command_sender import CommandSender
from tui.data.reader import Snapshot, SnapshotSource
from tui.screens.help import VIEW_KEYS
from tui.screens.quit_run import QuitChoice, QuitRunScreen


@dataclass(frozen=True)
class DemoStatus:
    """State of the command behind the screen."""

    level: Level = ""
    text: str = ""  # of the top line; empty for the usual one
    over: bool = False  # the run has ended and its report is written
    close: bool = False  # the screen should close


class DemoCommand(Protocol):
    """The command behind the screen. No method waits."""

    def status(self) -> DemoStatus: ...

    def stop(self) -> None:
        """End the run cleanly; a second call ends it at once."""

    def leave(self) -> None:
        """Close the screen; the run goes on."""


class DemoApp(MonitorApp):
    """App whose keys `q` and Ctrl-C also control the run."""

    KEYS = (
        *(key for key in VIEW_KEYS if key[0] != "q"),
        ("q", "stop the run, or leave the screen and print lines; also ctrl+q"),
        ("ctrl+c", "stop the run cleanly; a second time, end it at once"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "stop", show=False, priority=True),
        Binding("ctrl+q", "quit", "quit", show=False, priority=True),
    ]
    QUIT_HELP = "Stop the run, or leave the screen and print lines"

    def __init__(self, source: SnapshotSource, commands: CommandSender, demo: DemoCommand) -> None:
        super().__init__(source, commands)
        self._demo = demo
        self.failure: Exception | None = None

    def action_interrupt(self) -> None:
        self._demo.stop()
        self.refresh_screen()

    async def action_quit(self) -> None:
        """Ask what to do with the run, or leave if it is over."""
        if self._demo.status().over:
            self._demo.leave()
            self.refresh_screen()
        elif not isinstance(self.screen, QuitRunScreen):
            self.push_screen(QuitRunScreen(), self._on_quit_choice)

    def _on_quit_choice(self, choice: QuitChoice | None) -> None:
        if choice == "stop":
            self._demo.stop()
        elif choice == "leave":
            self._demo.leave()
        self.refresh_screen()

    def refresh_screen(self) -> None:
        """Show the latest snapshot, or close the screen."""
        if self.is_running and self._demo.status().close:
            self.exit()
            return
        super().refresh_screen()

    def top_line(self, snapshot: Snapshot) -> tuple[Level, str]:
        """Return the state of the command, or else what every run shows."""
        status = self._demo.status()
        if status.text:
            return status.level, status.text
        level, text = super().top_line(snapshot)
        finished = snapshot.view is not None and snapshot.view.info.status == "finished"
        return level, f"{text}; writing the report" if finished else text

    def _handle_exception(self, error: Exception) -> None:
        self.failure = self.failure or error
        super()._handle_exception(error)
