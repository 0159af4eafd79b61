"""The help lists every key, and the footer names what a key does now."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest
from textual.binding import Binding
from textual.dom import DOMNode
from textual.pilot import Pilot
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

import tui
from common.protocol.wire import pack
from common.store.store import connect
from tests.support.servers import Server
from tests.support.tui.live_app import live_info, publish, run_app
from tests.support.tui.pilot import wait_until
from tui.app import MonitorApp
from tui.replay_app import ReplayApp
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import COMMAND_KEYS, HelpScreen
from tui.screens.quit_run import QuitRunScreen

WRITTEN = {
    "question_mark": "?", "slash": "/", "plus": "+", "equals_sign": "=", "minus": "-",
    "up": "↑", "down": "↓", "left": "←", "right": "→", "pageup": "page up",
    "pagedown": "page down",
}  # fmt: skip
"""Keys with another name on the keyboard or in the help."""

BOXES = (HelpScreen, ConfirmScreen, QuitRunScreen)
"""Screens that show their own keys."""


def classes_with_keys() -> Iterator[type[DOMNode]]:
    """Yield every screen and widget of `tui` with keys of its own."""
    for info in pkgutil.walk_packages(tui.__path__, "tui."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            defined_here = isinstance(value, type) and value.__module__ == module.__name__
            if defined_here and issubclass(value, DOMNode) and "BINDINGS" in vars(value):
                yield value


def keys(widget: type[DOMNode]) -> set[str]:
    bindings = (each for each in widget.BINDINGS if isinstance(each, Binding))
    names = (key.strip() for each in bindings for key in each.key.split(","))
    return {WRITTEN.get(key, key) for key in names if key not in "123456789"}


@pytest.mark.parametrize(
    "widget", sorted({*classes_with_keys()} - {*BOXES}, key=str), ids=lambda each: each.__name__
)
def test_every_key_is_in_the_help_screen(widget: type[DOMNode]) -> None:
    app = widget if issubclass(widget, MonitorApp) else MonitorApp
    text = "\n".join(f"{key} {meaning}" for key, meaning in (*app.KEYS, *COMMAND_KEYS))
    words = re.split(r"[\s,;:]+", text)
    assert [key for key in keys(widget) if key not in (text if " " in key else words)] == []


def test_the_search_for_keys_finds_the_apps() -> None:
    assert {MonitorApp, ReplayApp} <= set(classes_with_keys())
    assert keys(ReplayApp) == {"+", "=", "-", "space"}


@pytest.mark.servers
def test_the_footer_offers_resume_while_the_run_is_paused(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    def offered(app: MonitorApp) -> list[str]:
        footer = app.query_one(Footer)
        return [key.description for key in footer.query(FooterKey) if key.key == "p"]

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await wait_until(pilot, "pause", lambda: offered(app) == ["pause"])
        store.set_info(run, pack(live_info(run, status="paused")))
        await wait_until(pilot, "resume", lambda: offered(app) == ["resume"])
        store.set_info(run, pack(live_info(run, status="running")))
        await wait_until(pilot, "pause again", lambda: offered(app) == ["pause"])

    run_app(redis_server.url, run, script)
