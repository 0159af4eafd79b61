"""Compares a screen with the picture of it in `snapshots/`.

`FCCL_UPDATE_SNAPSHOTS=1 python -m pytest tests/tui` draws them anew; look at what has changed.
(pytest-textual-snapshot does not fit the syrupy that fits our pytest: its pictures lose the .svg.)
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

PLACE = ROOT / "tests" / "tui" / "snapshots"
UPDATE = "FCCL_UPDATE_SNAPSHOTS"

Script = Callable[[Pilot[Any]], Awaitable[None]]


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until the screen is the same twice: layout and scroll bars have found their place."""
    before = None
    while before != (before := screen_text(pilot.app)):
        await pilot.pause()


def compare(
    app: App[None], name: str, size: tuple[int, int], aside: Path, script: Script = settle
) -> None:
    """Fail if the screen is not the picture.

    Args:
        app: Started here.
        name: Of the picture.
        size: Of the terminal.
        aside: Where a screen that differs is put.
        script: What is done before the comparison.
    """
    drawn = asyncio.run(_drawn(app, size, script))
    picture = PLACE / f"{name}.svg"
    if UPDATE in os.environ:
        PLACE.mkdir(exist_ok=True)
        picture.write_text(drawn)
    other = aside / picture.name
    other.write_text(drawn)
    expected = picture.read_text() if picture.exists() else ""
    changed = set(drawn.splitlines()) ^ set(expected.splitlines())
    assert not changed, f"{other} is not {picture} (draw anew: {UPDATE}=1)\n{_texts(changed)}"


async def _drawn(app: App[None], size: tuple[int, int], script: Script) -> str:
    async with app.run_test(size=size) as pilot:
        await script(pilot)
        await settle(pilot)
        svg = app.export_screenshot()
    svg = re.sub(r"terminal-[0-9]+", "terminal", svg)  # a hash of the whole picture
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def _texts(lines: set[str]) -> str:
    """What the lines that differ say."""
    texts = (re.sub(r"<[^>]*>", "", line).replace("&#160;", " ").strip() for line in lines)
    return "\n".join(sorted(filter(None, texts)))[:2000]
