"""Comparison of a screen with its stored picture in `tests/tui/snapshots`.

`FCCL_UPDATE_SNAPSHOTS=1 python -m pytest tests/tui` draws the pictures again; review the changes.
(pytest-textual-snapshot needs a syrupy that our pytest excludes; with ours, the files lose their
suffix .svg.)
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from tests.support.paths import ROOT
from tests.support.tui.pilot import screen_text

PICTURES = ROOT / "tests" / "tui" / "snapshots"
UPDATE = "FCCL_UPDATE_SNAPSHOTS"

Script = Callable[[Pilot[Any]], Awaitable[None]]


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until the screen is the same twice: layout and scroll bars take several passes."""
    before = None
    while before != (before := screen_text(pilot.app)):
        await pilot.pause()


def compare(
    app: App[None], name: str, size: tuple[int, int], aside: Path, script: Script = settle
) -> None:
    """Run a script against the app, and fail if its screen is not the picture `name`.

    The screen is written to the directory `aside`.
    """
    drawn = asyncio.run(_draw(app, size, script))
    picture = PICTURES / f"{name}.svg"
    if UPDATE in os.environ:
        PICTURES.mkdir(exist_ok=True)
        picture.write_text(drawn)
    other = aside / picture.name
    other.write_text(drawn)
    expected = picture.read_text() if picture.exists() else ""
    changed = set(drawn.splitlines()) ^ set(expected.splitlines())
    assert not changed, (
        f"{other} is not {picture} (draw it again: {UPDATE}=1)\n{_changed_text(changed)}"
    )


async def _draw(app: App[None], size: tuple[int, int], script: Script) -> str:
    async with app.run_test(size=size) as pilot:
        await script(pilot)
        await settle(pilot)
        svg = app.export_screenshot()
    svg = re.sub(r"terminal-[0-9]+", "terminal", svg)  # a hash of the whole picture
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _changed_text(lines: set[str]) -> str:
    texts = (re.sub(r"<[^>]*>", "", line).replace("&#160;", " ").strip() for line in lines)
    return "\n".join(sorted(filter(None, texts)))[:2000]
