"""`fccl tui`: screen of one run. Shows the latest snapshot of its source and never waits.

The app connects the parts: panes draw (`tui/panes/`), `tui/data/command_sender.py` sends what the
keys command.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import ClassVar, Protocol

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Static, TabbedContent, TabPane

from common.protocol.commands import CommandName
from common.store.view import ENDED_STATUSES, ClientRow, RunInfo
from tui.banner import Level, banner
from tui.data.command_sender import CommandSender
from tui.data.reader import Snapshot, SnapshotSource
from tui.panes.aggregation import AggregationPane
from tui.panes.clients import ClientsPane
from tui.panes.evaluation import EvaluationPane
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
NARROW_COLUMNS, LOW_ROWS = 100, 30  # smaller terminals get a shorter layout
PANES = {
    "overview": OverviewPane,
    "workers": WorkersPane,
    "clients": ClientsPane,
    "aggregation": AggregationPane,
    "queues": QueuesPane,
    "inbox": InboxPane,
    "log": LogPane,
    "samples": SamplesPane,
    "evaluation": EvaluationPane,
}
SHORT_TITLES = {"overview": "Run", "aggregation": "Weights", "evaluation": "Eval"}
"""Titles in narrow terminals: so all tabs fit into 80 columns."""
PALETTE_COMMANDS: dict[str, tuple[CommandName, str]] = {
    "Pause": ("pause", "Issue no new tasks until the run is resumed"),
    "Resume": ("resume", "Continue a paused run"),
    "Drain": ("drain", "Wait for open tasks, then end the run"),
    "Stop": ("stop", "End the run now; it can be resumed later"),
    "Kick the selected client": ("kick", "It gets no more tasks"),
    "Pardon the selected client": ("pardon", "It gets tasks again"),
    "Reissue the selected client's task": ("reissue", "Issue its open task again"),
    "Lower the minimum of clients": ("min-clients", "Continue with the clients that are live"),
    "Evaluate the newest version": ("evaluate", "Ask the sites to evaluate it on their own rows"),
}
UNCONFIRMED_COMMANDS = ("pause", "resume")  # each undoes the other
CLIENT_COMMANDS = ("kick", "pardon", "reissue")  # about the client under the cursor


class Pane(Protocol):
    """Interface of a pane to the app."""

    def show(self, snapshot: Snapshot) -> None: ...


class MonitorApp(App[None]):
    """Screen of one run, with a pane per subject."""

    CSS_PATH = "app.tcss"
    # Textual declares these three as instance variables and reads them from the class.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW_COLUMNS, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LOW_ROWS, "-high")]  # noqa: RUF012
    COMMANDS = {AppCommandProvider}  # noqa: RUF012
    KEYS: ClassVar[tuple[KeyHelp, ...]] = VIEW_KEYS
    """Keys in the help screen."""
    FREEZE_HELP = "Freeze the view, or continue"
    QUIT_HELP = "Close this screen; the run goes on"
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
        Binding("p", "resume", "resume"),  # the footer shows one of the two
        Binding("D", "command('drain')", "drain"),
        Binding("S", "command('stop')", "stop"),
        Binding("k", "command('kick')", "kick"),
        Binding("u", "command('pardon')", "pardon", show=False),  # no room in 80 columns
        Binding("r", "command('reissue')", "reissue"),
    ]

    def __init__(self, source: SnapshotSource, commands: CommandSender | None = None) -> None:
        """Create the app of a run; without `commands` the screen is read-only."""
        super().__init__()
        self.title = f"fccl {source.name}"
        self._source = source
        self._commands = commands
        self._frozen: Snapshot | None = None
        self._paused = False  # as the footer shows it

    def compose(self) -> ComposeResult:
        yield Static(id="banner", markup=False)
        yield Static(id="commands", markup=False)
        with TabbedContent(id="panes"):
            for number, (name, pane) in enumerate(PANES.items(), 1):
                with TabPane(f"{number} {name.capitalize()}", id=name):
                    yield pane(classes="pane")
        yield Footer(show_command_palette=False, compact=True)

    def on_resize(self, event: events.Resize) -> None:
        titles = SHORT_TITLES if event.size.width < NARROW_COLUMNS else {}
        for number, name in enumerate(PANES, 1):
            label = f"{number} {titles.get(name, name.capitalize())}"
            self._tabs.get_tab(name).label = label

    def on_mount(self) -> None:
        self._source.start()
        self.set_interval(REFRESH_S, self.refresh_screen)
        self.refresh_screen()

    def on_unmount(self) -> None:
        self._source.stop()
        if self._commands is not None:
            self._commands.close()

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot on the screen: the frozen one or the latest."""
        return self._frozen or self._source.latest()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide keys that would do nothing now."""
        if action not in ("pause", "resume", "command"):
            return True
        if self._commands is None:
            return False
        if action in ("pause", "resume"):
            return self._paused == (action == "resume")
        needs_client = bool(parameters) and parameters[0] in CLIENT_COMMANDS
        return not needs_client or (self._is_mounted and self._tabs.active == "clients")

    def action_tab(self, name: str) -> None:
        self._tabs.active = name

    def action_freeze(self) -> None:
        self._frozen = self._source.latest() if self._frozen is None else None
        self.refresh_screen()

    def action_help(self) -> None:
        self.push_screen(HelpScreen(self.KEYS, self._commands is not None))

    def action_pause(self) -> None:
        # The latest status may be newer than the footer.
        self.action_command("resume" if self._run_is_paused() else "pause")

    action_resume = action_pause

    def action_command(self, action: CommandName) -> None:
        """Send a command to the coordinator, after a question that names its target."""
        view = self._source.latest().view
        if self._commands is None or view is None:
            return
        if view.info.status in ENDED_STATUSES:
            self.notify("the run is over and has no coordinator", severity="warning")
            return
        client = self._selected_client() if action in CLIENT_COMMANDS else None
        target = _target(action, client, view.info)
        if target is None:
            self.notify(_no_target(action, client), severity="warning", markup=False)
            return
        send = partial(self._commands.send, view.info.run, action, target)
        if action in UNCONFIRMED_COMMANDS:
            send()
            self.refresh_screen()
            return
        question = _question(action, client, view.info, target)
        self.push_screen(ConfirmScreen(question), lambda yes: send() if yes else None)

    def palette_entries(self) -> Iterator[PaletteEntry]:
        for name in PANES:
            yield PaletteEntry(name.capitalize(), "Open this pane", partial(self.action_tab, name))
        if self._commands is not None:
            for title, (action, meaning) in PALETTE_COMMANDS.items():
                if self.check_action("command", (action,)):
                    yield PaletteEntry(title, meaning, partial(self.action_command, action))
        yield PaletteEntry("Freeze", self.FREEZE_HELP, self.action_freeze)
        yield PaletteEntry("Theme", "Choose other colours", self.action_change_theme)
        yield PaletteEntry("Help", "List the keys", self.action_help)
        yield PaletteEntry("Quit", self.QUIT_HELP, self.action_quit)

    def on_tabbed_content_tab_activated(self) -> None:
        """Fill the pane and give it the focus."""
        if not self.is_running:
            return
        self.refresh_bindings()
        self._show(self.snapshot)
        widgets = self._tabs.get_pane(self._tabs.active).query("*")
        first = next((widget for widget in widgets if widget.focusable), None)
        if first is not None:
            first.focus()

    def on_table_pane_row_chosen(self, event: TablePane.RowChosen) -> None:
        """Open the history of a client or worker."""
        detail = DetailScreen(event.noun, event.key)
        self.push_screen(detail)
        self.call_after_refresh(lambda: detail.show(self.snapshot))

    def on_log_pane_event_chosen(self, event: LogPane.EventChosen) -> None:
        """Open what an event is about: a client's history or a version's updates."""
        if event.kind == "client":
            self.on_table_pane_row_chosen(TablePane.RowChosen("client", event.name))
            return
        self.action_tab("aggregation")
        self._show(self.snapshot)
        self._tabs.query_one(AggregationPane).select(int(event.name))

    def refresh_screen(self) -> None:
        """Show the latest snapshot, unless the view is frozen, and update the lines around it."""
        if not self.is_running:  # a last tick while the widgets are removed
            return
        self._set_line("#banner", *self.top_line(self.snapshot))
        now = time.monotonic()
        lines = self._commands.status_lines(now) if self._commands is not None else []
        text = "\n".join(line for _, line in lines)
        self._set_line("#commands", lines[-1][0] if lines else "", text)
        if self._run_is_paused() != self._paused:
            self._paused = not self._paused
            self.refresh_bindings()
        if self._frozen is None:
            self._show(self.snapshot)

    def top_line(self, snapshot: Snapshot) -> tuple[Level, str]:
        return banner(snapshot, self._source.name, time.monotonic(), self._frozen is not None)

    @property
    def _tabs(self) -> TabbedContent:
        # The panes are on the first screen, below any other.
        return self.screen_stack[0].query_one("#panes", TabbedContent)

    def _run_is_paused(self) -> bool:
        view = self._source.latest().view
        return view is not None and view.info.status == "paused"

    def _show(self, snapshot: Snapshot) -> None:
        if isinstance(self.screen, DetailScreen):  # covers the pane
            self.screen.show(snapshot)
            return
        pane: Pane = self._tabs.get_pane(self._tabs.active).query_one(".pane")  # type: ignore[assignment]
        pane.show(snapshot)

    def _set_line(self, selector: str, level: str, text: str) -> None:
        line = self.screen_stack[0].query_one(selector, Static)
        if str(line.content) != text:
            line.set_classes(level)
            line.update(text)

    def _selected_client(self) -> ClientRow | None:
        view = self._source.latest().view
        selected = self._tabs.query_one(ClientsPane).selected
        rows = view.clients if view is not None else ()
        return next((row for row in rows if row.client_id == selected), None)


def _target(action: CommandName, client: ClientRow | None, info: RunInfo) -> str | None:
    """Return the target of a command, empty for the whole run; None where there is none."""
    match action:
        case "min-clients":
            live, least = info.live_clients, info.min_clients
            return str(live) if live and least and live < least else None
        case "evaluate":
            return str(info.version)
        case "reissue":
            return client.task_id if client else None
        case "kick" | "pardon":
            return client.client_id if client else None
    return ""


def _no_target(action: CommandName, client: ClientRow | None) -> str:
    if action == "min-clients":
        return "no need to lower the minimum: enough clients are live, or none is"
    reason = f"{client.client_id} has no open task" if client else "no client is selected"
    return f"nothing to {action}: {reason}"


def _question(action: CommandName, client: ClientRow | None, info: RunInfo, target: str) -> str:
    if action == "min-clients":
        return f"Lower the minimum of run {info.name} from {info.min_clients} to {target} clients?"
    if action == "evaluate":
        return f"Ask the sites to evaluate version {target} of run {info.name}?"
    if client is None:
        return f"{action.capitalize()} run {info.name}?"
    task = f"task {client.task_id} of " if action == "reissue" else ""
    return f"{action.capitalize()} {task}client {client.client_id} in run {info.name}?"
