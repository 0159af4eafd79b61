"""`fccl tui`: one run, live. Shows what `tui/feed.py` reads, and never waits.

A thin shell: panes draw (`tui/panes/`), `tui/controls.py` sends what the keys order.
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
from tui.controls import DESTRUCTIVE, Controls
from tui.feed import Look, Source
from tui.help import WATCH, Help, Key
from tui.palette import Commands, Entry
from tui.panes.aggregation import Aggregation
from tui.panes.clients import Clients
from tui.panes.detail import Detail
from tui.panes.inbox import Inbox
from tui.panes.listing import Listing
from tui.panes.log import Log
from tui.panes.overview import Overview
from tui.panes.queues import Queues
from tui.panes.samples import Samples
from tui.panes.workers import Workers
from tui.widgets.confirm import Confirm

REFRESH_S = 0.5
NARROW, LOW = 100, 30  # columns and rows: below, there is less to see
ENDED = ("stopped", "finished", "failed")
PANES = {
    "overview": Overview,
    "workers": Workers,
    "clients": Clients,
    "aggregation": Aggregation,
    "queues": Queues,
    "inbox": Inbox,
    "log": Log,
    "samples": Samples,
}
CONTROLS: dict[str, tuple[CommandName, str]] = {
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

    def show(self, look: Look) -> None:
        """Put a look on the screen."""


class Watch(App[None]):
    """The screen of one run."""

    CSS_PATH = "app.tcss"
    # Textual declares these three as variables of an instance, and reads them from the class.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (LOW, "-high")]  # noqa: RUF012
    COMMANDS = {Commands}  # noqa: RUF012 - in place of Textual's own, which would write files
    KEYS: ClassVar[tuple[Key, ...]] = WATCH
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

    def __init__(self, feed: Source, controls: Controls | None = None) -> None:
        """Show what a feed reads; it is started and stopped with the screen.

        Args:
            feed: Reads the run.
            controls: Changes it; None for a screen that only shows.
        """
        super().__init__()
        self.title = f"fccl {feed.name}"
        self._feed = feed
        self._controls = controls
        self._frozen: Look | None = None
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
        self._feed.start()
        self.set_interval(REFRESH_S, self._refresh)
        self._refresh()

    def on_unmount(self) -> None:
        """The reader ends with the screen."""
        self._feed.stop()
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
        self._frozen = self._feed.look() if self._frozen is None else None
        self._refresh()

    def action_help(self) -> None:
        """Say what the keys do."""
        self.push_screen(Help(self.KEYS, self._controls is not None))

    def action_pause(self) -> None:
        """Pause; where it is paused, resume."""
        view = self._feed.look().view  # newer than the footer
        paused = view is not None and view.info.status == "paused"
        self.action_control("resume" if paused else "pause")

    action_resume = action_pause

    def action_control(self, action: CommandName) -> None:
        """Order something of the coordinator; what cannot be taken back is confirmed first."""
        view = self._feed.look().view
        if self._controls is None or view is None:
            return
        if view.info.status in ENDED:
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
        question = Confirm(f"{action.capitalize()} {what}?")
        self.push_screen(question, lambda yes: order() if yes else None)

    def entries(self) -> Iterator[Entry]:
        """What the palette offers."""
        for name in PANES:
            yield Entry(name.capitalize(), "Show this pane", partial(self.action_tab, name))
        if self._controls is not None:
            for title, (action, reason) in CONTROLS.items():
                if self.check_action("control", (action,)):
                    yield Entry(title, reason, partial(self.action_control, action))
        yield Entry("Freeze", "Hold the view still, or let it go on", self.action_freeze)
        yield Entry("Theme", "Other colours", self.action_change_theme)
        yield Entry("Help", "What the keys do", self.action_help)
        yield Entry("Quit", self.QUITTING, self.action_quit)

    def on_tabbed_content_tab_activated(self) -> None:
        """The pane shows what there is at once, and takes the keys."""
        if not self.is_running:
            return
        self.refresh_bindings()
        self._show(self._frozen or self._feed.look())
        within = self._tabs.get_pane(self._tabs.active).query("*")
        first = next((widget for widget in within if widget.focusable), None)
        if first is not None:
            first.focus()

    def on_listing_chosen(self, event: Listing.Chosen) -> None:
        """Open the history of a client or worker."""
        detail = Detail(event.noun, event.key)
        self.push_screen(detail)
        self.call_after_refresh(lambda: detail.show(self._frozen or self._feed.look()))

    def on_log_jump(self, event: Log.Jump) -> None:
        """Go where an event leads: to a client's history, or to a version's updates."""
        if event.kind == "client":
            self.on_listing_chosen(Listing.Chosen("client", event.name))
            return
        self.action_tab("aggregation")
        self._show(self._frozen or self._feed.look())
        self._tabs.query_one(Aggregation).select(int(event.name))

    @property
    def _tabs(self) -> TabbedContent:
        # Another screen may lie on top; the panes are on the first one.
        return self.screen_stack[0].query_one("#panes", TabbedContent)

    def _refresh(self) -> None:
        if not self.is_running:  # a last tick, while the widgets go one by one
            return
        look = self._frozen or self._feed.look()
        now = time.monotonic()
        self._line("#banner", *self._top(look))
        lines = self._controls.lines(now) if self._controls is not None else []
        self._line("#orders", lines[-1][0] if lines else "", "\n".join(text for _, text in lines))
        self._offer()
        if self._frozen is None:
            self._show(look)

    def _top(self, look: Look) -> tuple[Level, str]:
        """The line on top."""
        return banner(look, self._feed.name, time.monotonic(), self._frozen is not None)

    def _offer(self) -> None:
        """The footer names what `p` does now, held still or not."""
        view = self._feed.look().view
        paused = view is not None and view.info.status == "paused"
        if paused != self._paused:
            self._paused = paused
            self.refresh_bindings()

    def _show(self, look: Look) -> None:
        top = self.screen
        if isinstance(top, Detail):  # covers the pane
            if top.query("#about"):  # not yet, or no more, while the screen comes or goes
                top.show(look)
            return
        pane: Pane = self._tabs.get_pane(self._tabs.active).query_one(".pane")  # type: ignore[assignment]
        pane.show(look)

    def _line(self, selector: str, level: str, text: str) -> None:
        line = self.screen_stack[0].query_one(selector, Static)
        if str(line.content) != text:
            line.set_classes(level)
            line.update(text)

    def _client(self) -> ClientRow | None:
        view = self._feed.look().view
        selected = self._tabs.query_one(Clients).selected
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
