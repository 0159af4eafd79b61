"""Commands of the palette: panes, commands to the coordinator, themes.

It replaces Textual's own provider, whose screenshot command writes files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.types import IgnoreReturnCallbackType

if TYPE_CHECKING:
    from tui.app import MonitorApp


class PaletteEntry(NamedTuple):
    """One line of the palette."""

    name: str
    help: str
    call: IgnoreReturnCallbackType


class AppCommandProvider(Provider):
    """Commands that the app offers at this moment."""

    async def discover(self) -> Hits:
        for entry in self._entries():
            yield DiscoveryHit(entry.name, entry.call, help=entry.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for entry in self._entries():
            score = matcher.match(entry.name)
            if score > 0:
                yield Hit(score, matcher.highlight(entry.name), entry.call, help=entry.help)

    def _entries(self) -> Iterator[PaletteEntry]:
        return cast("MonitorApp", self.app).palette_entries()
