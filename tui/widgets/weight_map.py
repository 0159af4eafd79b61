"""Map of weights by version and client; only the cells in sight are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from common.protocol.versions import VersionSummary
from tui.data.weights import natural_key, weight_digit, weights_by_client

NAME_WIDTH = 14
TICK = 10  # versions between two numbers above the map
HEADER_LINES = 2
LOW_COLOUR, HIGH_COLOUR = (38, 50, 72), (255, 176, 64)  # RGB of weight 0 and the largest


class WeightMap(ScrollView, can_focus=True):
    """A digit and a colour per weight. Columns are versions, newest at the right."""

    DEFAULT_CSS = """
    WeightMap { height: 1fr; scrollbar-size-horizontal: 0; scrollbar-gutter: stable; }
    WeightMap:focus { background-tint: $foreground 5%; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._versions: Sequence[VersionSummary] = ()
        self._weights: Mapping[str, Mapping[int, float]] = {}
        self._clients: list[str] = []
        self._largest = 0.0
        self._selected: int | None = None

    def set_versions(self, versions: Sequence[VersionSummary], selected: int | None) -> None:
        """Show these versions, and mark one."""
        if versions is not self._versions:
            self._versions, self._weights = versions, weights_by_client(versions)
            self._clients = sorted(self._weights, key=natural_key)
            weights = (weight for row in self._weights.values() for weight in row.values())
            self._largest = max(weights, default=0.0)
            self._fit()
        self._selected = selected
        self.refresh()

    def on_resize(self) -> None:
        self._fit()

    def render_line(self, y: int) -> Strip:
        region = self.scrollable_content_region
        first = self._first(region.width - NAME_WIDTH - 1)
        shown = [s.version for s in self._versions[first:]]
        segments = self._line(y, shown)
        strip = Strip([Segment(text, style) for text, style in segments])
        return strip.adjust_cell_length(region.width).apply_style(self.rich_style)

    def _line(self, y: int, shown: Sequence[int]) -> list[tuple[str, Style]]:
        plain, dim = Style(), Style(dim=True)
        if y == 0:
            title = f"weights by version; 9 is {self._largest:.2f}, blank is no update"
            return [(title if self._clients else "no update applied yet", Style(bold=True))]
        if y == 1:
            return [(" " * (NAME_WIDTH + 1), plain), (_axis(shown, self._selected), dim)]
        row = y - HEADER_LINES + self.scroll_offset.y
        if not 0 <= row < len(self._clients):
            return []
        name, weights = self._clients[row], self._weights[self._clients[row]]
        label = Text(name)
        label.truncate(NAME_WIDTH, overflow="ellipsis", pad=True)
        cells = [self._cell(weights.get(version)) for version in shown]
        return [(label.plain + " ", plain), *cells]

    def _cell(self, weight: float | None) -> tuple[str, Style]:
        text = weight_digit(weight, self._largest)
        if weight is None:
            return text, Style()
        share = weight / self._largest if self._largest > 0 else 0.0
        mixed = [
            round(low + (high - low) * share)
            for low, high in zip(LOW_COLOUR, HIGH_COLOUR, strict=True)
        ]
        front = "black" if share > 0.5 else "white"
        return text, Style(color=front, bgcolor=Color.from_rgb(*mixed))

    def _first(self, width: int) -> int:
        """Return the index of the oldest version in sight; the selected one is in sight."""
        count = len(self._versions)
        newest = max(0, count - max(1, width))
        at = next((i for i, s in enumerate(self._versions) if s.version == self._selected), count)
        return min(newest, at)

    def _fit(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._clients) + HEADER_LINES)


def _axis(shown: Sequence[int], selected: int | None) -> str:
    """Return the numbers above the versions, with `v` above the selected one."""
    line = [" "] * len(shown)
    for at, version in enumerate(shown):
        if version % TICK == 0:
            line[at : at + len(str(version))] = str(version)
    if selected in shown:
        line[shown.index(selected)] = "v"
    return "".join(line)
