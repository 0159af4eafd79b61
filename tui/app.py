"""`fccl tui`: one run, live. Shows what `tui/data/reader.py` reads, and never waits.

A thin shell: panes draw (`tui/panes/`), `tui/data/command_sender.py` sends what the keys order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Protocol

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Static, TabbedContent, TabPane

from common.protocol.commands import CommandName
from common.store.view import ClientRow
from tui.banner import Level, banner
from tui.data.command_sender import DESTRUCTIVE, CommandSender
from tui.data.reader import Snapshot, SnapshotSource
from tui.panes.aggregation import AggregationPane
from tui.panes.clients import ClientsPane
from tui.panes.inbox import InboxPane
from tui.panes.log import LogPane
from tui.panes.overview import OverviewPane
from tui.panes.queues import QueuesPane
from tui.panes.samples import SamplesPane
from tui.panes.table_pane import TablePane
from tui.panes.workers import WorkersPane
from tui.screens.command_palette import AppCommandProvider, PaletteEntry
from tui.screens.confirm import ConfirmScreen
from tui.screens.detail import DetailScreen
from tui.screens.help import VIEW_KEYS, HelpScreen, KeyHelp

REFRESH_S = 0.5
NARROW_COLUMNS, LOW_ROWS = 100, 30  # columns and rows: below, there is less to see
ENDED_STATUSES = ("stopped", "finished", "failed")
PANES = {
    "overview": OverviewPane,
    "workers": WorkersPane,
    "clients": ClientsPane,
    "aggregation": AggregationPane,
    "queues": QueuesPane,
    "inbox": InboxPane,
    "log": LogPane,
    "samples": SamplesPane,
}
PALETTE_COMMANDS: dict[str, tuple[CommandName, str]] = {
    "Pause": ("pause", "No new tasks until it is resumed"),
    "Resume": ("resume", "Go on after a pause"),
    "Drain": ("drain", "Finish what is open, then end the run"),
    "Stop": ("stop", "End the run now; it can be resumed"),
    "Kick the selected client": ("kick", "It gets no more tasks"),
    "Pardon the selected client": ("pardon", "It gets tasks again"),
    "Reissue the selected client's task": (
        "reissue",
        "It is handed out once more",
    ),
}


class Pane(Protocol):
    """What the app asks of a pane."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot on the screen."""


class MonitorApp(App[None]):
    """The screen of one run."""

    CSS_PATH = "app.tcss"
    # Textual declares these three as variables of an instance, and reads them from the class.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW_COLUMNS, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LOW_ROWS, "-high")]  # noqa: RUF012
    COMMANDS = {AppCommandProvider}  # noqa: RUF012 - in place of Textual's own, which would write files
    KEYS: ClassVar[tuple[KeyHelp, ...]] = VIEW_KEYS
    """What the help says of them."""
    QUITTING = "The run goes on"
    COMMAND_PALETTE_DISPLAY = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"tab({name!r})", name, show=False)
            for number, name in enumerate(PANES, 1)
        ),
        Binding("q", "quit", "quit"),
        Binding("space", "freeze", "freeze"),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("p", "pause", "pause"),
        Binding("p", "resume", "resume"),  # one of the two is offered
        Binding("D", "control('drain')", "drain"),
        Binding("S", "control('stop')", "stop"),
        Binding("k", "control('kick')", "kick"),
        Binding("u", "control('pardon')", "pardon", show=False),  # 80 columns are full
        Binding("r", "control('reissue')", "reissue"),
    ]

    def __init__(self, feed: SnapshotSource, controls: CommandSender | None = None) -> None:
        """Show what a feed reads; it is started and stopped with the screen.

        Args:
            feed: Reads the run.
            controls: Changes it; None for a screen that only shows.
        """
        super().__init__()
        self.title = f"fccl {feed.name}"
        self._source = feed
        self._controls = controls
        self._frozen: Snapshot | None = None
        self._paused = False  # what the footer was told

    def compose(self) -> ComposeResult:
        """What is to be said, if anything; the panes; the keys."""
        yield Static(id="banner", markup=False)
        yield Static(id="orders", markup=False)
        with TabbedContent(id="panes"):
            for number, (name, kind) in enumerate(PANES.items(), 1):
                with TabPane(f"{number} {name.capitalize()}", id=name):
                    yield kind(classes="pane")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Begin to read, and to show."""
        self._source.start()
        self.set_interval(REFRESH_S, self._refresh)
        self._refresh()

    def on_unmount(self) -> None:
        """The reader ends with the screen."""
        self._source.stop()
        if self._controls is not None:
            self._controls.close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that would do nothing here are not offered."""
        if action not in ("pause", "resume", "control"):
            return True
        if self._controls is None:
            return False
        if action in ("pause", "resume"):
            return self._paused == (action == "resume")
        of_client = bool(parameters) and parameters[0] in ("kick", "pardon", "reissue")
        return not of_client or (self._is_mounted and self._tabs.active == "clients")

    def action_tab(self, name: str) -> None:
        """Show a pane."""
        self._tabs.active = name

    def action_freeze(self) -> None:
        """Hold the view still, or let it go on."""
        self._frozen = self._source.latest() if self._frozen is None else None
        self._refresh()

    def action_help(self) -> None:
        """Say what the keys do."""
        self.push_screen(HelpScreen(self.KEYS, self._controls is not None))

    def action_pause(self) -> None:
        """Pause; where it is paused, resume."""
        view = self._source.latest().view  # newer than the footer
        paused = view is not None and view.info.status == "paused"
        self.action_control("resume" if paused else "pause")

    action_resume = action_pause

    def action_control(self, action: CommandName) -> None:
        """Order something of the coordinator; what cannot be taken back is confirmed first."""
        view = self._source.latest().view
        if self._controls is None or view is None:
            return
        if view.info.status in ENDED_STATUSES:
            self.notify("the run is over: no coordinator serves it", severity="warning")
            return
        run, name, target = view.info.run, view.info.name, self._target(action)
        if target is None:
            client = self._client()
            lacks = f"{client.client_id} has no open task" if client else "no client is selected"
            self.notify(f"nothing to {action}: {lacks}", severity="warning")
            return
        order = partial(self._controls.order, run, action, target)
        if action not in DESTRUCTIVE:
            order()
            self._refresh()
            return
        what = f"client {target} of run {name}" if target else f"run {name}"
        question = ConfirmScreen(f"{action.capitalize()} {what}?")
        self.push_screen(question, lambda yes: order() if yes else None)

    def entries(self) -> Iterator[PaletteEntry]:
        """What the palette offers."""
        for name in PANES:
            yield PaletteEntry(name.capitalize(), "Show this pane", partial(self.action_tab, name))
        if self._controls is not None:
            for title, (action, reason) in PALETTE_COMMANDS.items():
                if self.check_action("control", (action,)):
                    yield PaletteEntry(title, reason, partial(self.action_control, action))
        yield PaletteEntry("Freeze", "Hold the view still, or let it go on", self.action_freeze)
        yield PaletteEntry("Theme", "Other colours", self.action_change_theme)
        yield PaletteEntry("Help", "What the keys do", self.action_help)
        yield PaletteEntry("Quit", self.QUITTING, self.action_quit)

    def on_tabbed_content_tab_activated(self) -> None:
        """The pane shows what there is at once, and takes the keys."""
        if not self.is_running:
            return
        self.refresh_bindings()
        self._show(self._frozen or self._source.latest())
        within = self._tabs.get_pane(self._tabs.active).query("*")
        first = next((widget for widget in within if widget.focusable), None)
        if first is not None:
            first.focus()

    def on_table_pane_row_chosen(self, event: TablePane.RowChosen) -> None:
        """Open the history of a client or worker."""
        detail = DetailScreen(event.noun, event.key)
        self.push_screen(detail)
        self.call_after_refresh(lambda: detail.show(self._frozen or self._source.latest()))

    def on_log_pane_event_chosen(self, event: LogPane.EventChosen) -> None:
        """Go where an event leads: to a client's history, or to a version's updates."""
        if event.kind == "client":
            self.on_table_pane_row_chosen(TablePane.RowChosen("client", event.name))
            return
        self.action_tab("aggregation")
        self._show(self._frozen or self._source.latest())
        self._tabs.query_one(AggregationPane).select(int(event.name))

    @property
    def _tabs(self) -> TabbedContent:
        # Another screen may lie on top; the panes are on the first one.
        return self.screen_stack[0].query_one("#panes", TabbedContent)

    def _refresh(self) -> None:
        if not self.is_running:  # a last tick, while the widgets go one by one
            return
        snapshot = self._frozen or self._source.latest()
        now = time.monotonic()
        self._line("#banner", *self._top(snapshot))
        lines = self._controls.lines(now) if self._controls is not None else []
        self._line("#orders", lines[-1][0] if lines else "", "\n".join(text for _, text in lines))
        self._offer()
        if self._frozen is None:
            self._show(snapshot)

    def _top(self, snapshot: Snapshot) -> tuple[Level, str]:
        """The line on top."""
        return banner(snapshot, self._source.name, time.monotonic(), self._frozen is not None)

    def _offer(self) -> None:
        """The footer names what `p` does now, held still or not."""
        view = self._source.latest().view
        paused = view is not None and view.info.status == "paused"
        if paused != self._paused:
            self._paused = paused
            self.refresh_bindings()

    def _show(self, snapshot: Snapshot) -> None:
        top = self.screen
        if isinstance(top, DetailScreen):  # covers the pane
            if top.query("#about"):  # not yet, or no more, while the screen comes or goes
                top.show(snapshot)
            return
        pane: Pane = self._tabs.get_pane(self._tabs.active).query_one(".pane")  # type: ignore[assignment]
        pane.show(snapshot)

    def _line(self, selector: str, level: str, text: str) -> None:
        line = self.screen_stack[0].query_one(selector, Static)
        if str(line.content) != text:
            line.set_classes(level)
            line.update(text)

    def _client(self) -> ClientRow | None:
        view = self._source.latest().view
        selected = self._tabs.query_one(ClientsPane).selected
        rows = view.clients if view is not None else ()
        return next((row for row in rows if row.client_id == selected), None)

    def _target(self, action: CommandName) -> str | None:
        """Of what an order is about; None where there is no such thing."""
        if action in ("pause", "resume", "drain", "stop"):
            return ""
        client = self._client()
        if client is None:
            return None
        return client.task_id if action == "reissue" else client.client_id
