"""The screen of a run that the same command has started, and that ends with it.

`q` asks what to do with the run, Ctrl-C stops it, and the line on top says where its report is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.app import MonitorApp
from tui.banner import Level
from tui.data.command_sender import CommandSender
from tui.data.reader import Snapshot, SnapshotSource
from tui.screens.help import VIEW_KEYS

QUESTION = """\
The run belongs to this command.

s        stop it: commit what has come in, then end; --resume goes on
l        leave this screen: the run goes on, told in lines
escape   neither"""


@dataclass(frozen=True)
class DemoStatus:
    """How it stands with the run behind the screen.

    Attributes:
        level: Of the line on top.
        text: To say there; nothing, to say what there is to say of every run.
        over: The run has ended, and what it leaves is written.
        close: There is nothing to show any more.
    """

    level: Level = ""
    text: str = ""
    over: bool = False
    close: bool = False


class DemoRun(Protocol):
    """The command. No method waits."""

    def standing(self) -> DemoStatus:
        """How it stands now."""

    def stop(self) -> None:
        """End the run cleanly; again: at once."""

    def leave(self) -> None:
        """The screen is left, and the run goes on."""


class QuitScreen(ModalScreen[Literal["stop", "leave", ""]]):
    """Stop, or leave alone, or neither."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "dismiss('stop')", "stop"),
        Binding("l", "dismiss('leave')", "leave"),
        Binding("escape,q,n,enter,space", "dismiss('')", "neither"),
    ]

    def compose(self) -> ComposeResult:
        """One box."""
        yield Static(QUESTION, markup=False)


class DemoApp(MonitorApp):
    """`q` and Ctrl-C are about the run, too."""

    KEYS = (
        *(key for key in VIEW_KEYS if key[0] != "q"),
        ("q", "stop the run, or leave it to go on in lines; so does ctrl+q"),
        ("ctrl+c", "stop the run cleanly; again: at once"),
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "stop", show=False, priority=True),
        Binding("ctrl+q", "quit", "quit", show=False, priority=True),
    ]
    QUITTING = "Stop the run, or leave it to go on in lines"

    def __init__(self, feed: SnapshotSource, controls: CommandSender, host: DemoRun) -> None:
        """Show a run, and ask the command behind it."""
        super().__init__(feed, controls)
        self._host = host
        self.failure: Exception | None = None

    def action_interrupt(self) -> None:
        """What Ctrl-C does anywhere."""
        self._host.stop()
        self._refresh()

    async def action_quit(self) -> None:
        """Ask, unless there is nothing to ask about."""
        if self._host.standing().over:
            self._host.leave()
            self._refresh()
        elif not isinstance(self.screen, QuitScreen):
            self.push_screen(QuitScreen(), self._chosen)

    def _chosen(self, choice: Literal["stop", "leave", ""] | None) -> None:
        if choice == "stop":
            self._host.stop()
        elif choice == "leave":
            self._host.leave()
        self._refresh()

    def _refresh(self) -> None:
        if self.is_running and self._host.standing().close:
            self.exit()
            return
        super()._refresh()

    def _top(self, snapshot: Snapshot) -> tuple[Level, str]:
        standing = self._host.standing()
        if standing.text:
            return standing.level, standing.text
        level, text = super()._top(snapshot)
        finished = snapshot.view is not None and snapshot.view.info.status == "finished"
        return level, f"{text}; its report is being written" if finished else text

    def _handle_exception(self, error: Exception) -> None:
        self.failure = self.failure or error
        super()._handle_exception(error)
