"""The help names every key that does something, and the footer what it does now."""

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
from tests.support.tui.live_app import info, publish, shows, watch
from tui.app import MonitorApp
from tui.demo_app import QuitScreen
from tui.replay_app import ReplayApp
from tui.screens import help
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen

WRITTEN = {
    "question_mark": "?", "slash": "/", "plus": "+", "equals_sign": "=", "minus": "-",
    "up": "↑", "down": "↓", "left": "←", "right": "→", "pageup": "page up",
    "pagedown": "page down",
}  # fmt: skip
"""Keys that have another name on the keyboard, or in the help."""

BOXES = (HelpScreen, ConfirmScreen, QuitScreen)
"""They say themselves what their keys do."""


def parts() -> Iterator[type[DOMNode]]:
    """Every screen and widget of ours that has keys of its own."""
    for found in pkgutil.walk_packages(tui.__path__, "tui."):
        module = importlib.import_module(found.name)
        for thing in vars(module).values():
            ours = isinstance(thing, type) and thing.__module__ == module.__name__
            if ours and issubclass(thing, DOMNode) and "BINDINGS" in vars(thing):
                yield thing


def keys(part: type[DOMNode]) -> set[str]:
    made = (each for each in part.BINDINGS if isinstance(each, Binding))
    names = (key.strip() for each in made for key in each.key.split(","))
    return {WRITTEN.get(key, key) for key in names if key not in "12345678"}


@pytest.mark.parametrize("part", sorted(set(parts()), key=str), ids=lambda part: part.__name__)
def test_every_key_is_in_the_help(part: type[DOMNode]) -> None:
    if part in BOXES:
        return
    screen = part if issubclass(part, MonitorApp) else MonitorApp
    text = "\n".join(f"{key} {does}" for key, does in (*screen.KEYS, *help.COMMAND_KEYS))
    words = re.split(r"[\s,;:]+", text)
    assert [key for key in keys(part) if key not in (text if " " in key else words)] == []


def test_there_are_keys_to_look_at() -> None:
    assert {MonitorApp, ReplayApp} <= set(parts())
    assert keys(ReplayApp) == {"+", "=", "-", "space"}


@pytest.mark.servers
def test_the_footer_says_resume_while_the_run_is_paused(redis_server: Server, run: str) -> None:
    store = connect(redis_server.url)
    publish(store, run)

    def offered(app: MonitorApp) -> list[str]:
        footer = app.query_one(Footer)
        return [key.description for key in footer.query(FooterKey) if key.key == "p"]

    async def script(pilot: Pilot[None], app: MonitorApp) -> None:
        await shows(pilot, "pause", lambda: offered(app) == ["pause"])
        store.set_info(run, pack(info(run, status="paused")))
        await shows(pilot, "resume", lambda: offered(app) == ["resume"])
        store.set_info(run, pack(info(run, status="running")))
        await shows(pilot, "pause again", lambda: offered(app) == ["pause"])

    watch(redis_server.url, run, script)
