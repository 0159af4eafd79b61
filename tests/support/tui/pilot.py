"""Apps under Textual's pilot: run a script against them, read the screen, wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget

from tui import app as tui_app

LONG = 20.0
"""Limit of a wait for something that must come; seconds."""

Script = Callable[[Pilot[None]], Awaitable[None]]


class PaneApp(App[None]):
    """App with one pane, which keeps the messages that the pane sends to it."""

    def __init__(self, pane: Widget) -> None:
        super().__init__()
        self.pane: Any = pane
        self.messages: list[Message] = []

    def compose(self) -> ComposeResult:
        yield self.pane


class StyledPaneApp(PaneApp):
    """App with one pane and the styles of the real app, which tables need."""

    CSS_PATH = Path(tui_app.__file__).with_name("app.tcss")


def run_pane(app: PaneApp, script: Script, size: tuple[int, int] = (100, 20)) -> None:
    """Run a script against a pane."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await script(pilot)

    asyncio.run(run())


async def wait_until(pilot: Pilot[None], what: str, condition: Callable[[], object]) -> None:
    """Wait until a condition holds, and fail with the screen if it does not."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {what}\n{screen_text(pilot.app)}"
        await pilot.pause(0.02)


def screen_text(app: App[Any]) -> str:
    """Return what is on the screen, including anything on top."""
    width = app.size.width
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join(strip.text[:width].rstrip() for strip in strips)
