"""`fccl tui`: one run, live. Shows what `tui/feed.py` reads; changes nothing, and never waits."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from common.view import FederationView
from tui.banner import banner
from tui.feed import Look, Source
from tui.panel import panel

REFRESH_S = 0.5
EVENTS = 20  # at most, and at least the few that say what goes on
FEW_EVENTS = 6
OTHER_LINES = 12  # of the panel and around it, beside a line for each client and worker

HELP = """\
[b]q[/b]       quit; the run goes on
[b]space[/b]   hold the view still, and let it go on
[b]↑ ↓[/b]     scroll, as do Page Up and Page Down
[b]?[/b]       this

A line on top says when the view is old: without the store the
last view stays, and this screen reconnects by itself."""


class Help(ModalScreen[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,space", "dismiss", "close")
    ]

    def compose(self) -> ComposeResult:
        """One box."""
        yield Static(HELP)


class Watch(App[None]):
    """The screen of one run."""

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False  # it would offer to write files, also to a browser far away
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("space", "freeze", "freeze", priority=False),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, feed: Source) -> None:
        """Show what a feed reads; it is started and stopped with the screen."""
        super().__init__()
        self.title = f"fccl {feed.name}"
        self._feed = feed
        self._frozen: Look | None = None

    def compose(self) -> ComposeResult:
        """A banner, which is there when there is something to say; the view; the keys."""
        yield Static(id="banner", markup=False)
        with VerticalScroll(id="body"):
            yield Static(id="run")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read, and to show."""
        self._feed.start()
        self.query_one("#body").focus()
        self.set_interval(REFRESH_S, self._refresh)
        self._refresh()

    def on_unmount(self) -> None:
        """The reader ends with the screen."""
        self._feed.stop()

    def action_freeze(self) -> None:
        """Hold the view still, or let it go on."""
        self._frozen = self._feed.look() if self._frozen is None else None
        self._refresh()

    def action_help(self) -> None:
        """Say what the keys do."""
        self.push_screen(Help())

    def _refresh(self) -> None:
        look = self._frozen or self._feed.look()
        level, text = banner(look, self._feed.name, time.monotonic(), self._frozen is not None)
        top = self._line("#banner")
        top.set_classes(level)
        top.update(text)
        if look.view is not None and self._frozen is None:
            shown = panel(look.view, look.clock, events=self._room(look.view))
            self._line("#run").update(shown)

    def _room(self, view: FederationView) -> int:
        """Events that fit below the tables, so that the newest is seen without scrolling."""
        left = self.size.height - OTHER_LINES - len(view.clients) - len(view.workers)
        return max(FEW_EVENTS, min(EVENTS, left))

    def _line(self, selector: str) -> Static:
        # The help screen may lie on top; the view is on the first one.
        return self.screen_stack[0].query_one(selector, Static)
