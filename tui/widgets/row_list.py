"""List of lines with a cursor that draws only the lines in sight, for logs and many versions.

Rows have keys. When rows arrive, the cursor and the scroll position stay on their row, unless the
cursor is at the end where rows arrive: then it follows them. In a sorted table rows arrive
anywhere: there the cursor stays on its row, and the scroll position does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar, Literal

from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

Arrivals = Literal["top", "bottom", "anywhere"]

CURSOR = Style(reverse=True)
BLURRED_CURSOR = Style(bold=True, underline=True)  # while something else has the focus


class RowList(ScrollView, can_focus=True):
    """Lines with a cursor, and an optional header above them."""

    DEFAULT_CSS = """
    RowList { height: 1fr; scrollbar-gutter: stable; scrollbar-size-horizontal: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "up", show=False),
        Binding("down", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home", "end(0)", "first", show=False),
        Binding("end", "end(-1)", "last", show=False),
        Binding("enter", "choose", "choose", show=False),
    ]

    cursor: reactive[int] = reactive(0, init=False)

    class CursorMoved(Message):
        """The cursor moved to another row."""

        def __init__(self, rows: RowList, key: Hashable) -> None:
            super().__init__()
            self.rows, self.key = rows, key

        @property
        def control(self) -> RowList:
            """The list, for `textual.on` with a selector."""
            return self.rows

    class RowChosen(CursorMoved):
        """A row was chosen by enter or by a click on the cursor."""

    def __init__(
        self,
        *,
        header: str = "",
        arrivals: Arrivals = "top",
        empty: str = "",
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """Create an empty list, which shows the text `empty`; new rows come at `arrivals`."""
        super().__init__(id=id, classes=classes)
        self._header, self._arrivals, self._empty = header, arrivals, empty
        self._keys: Sequence[Hashable] = ()
        self._draw: Callable[[int], Text] = lambda _: Text()
        self._base = Style()

    @property
    def key(self) -> Hashable:
        """The key of the row under the cursor; None without rows."""
        return self._keys[self.cursor] if self._keys else None

    @property
    def follows_new_rows(self) -> bool:
        """True if the cursor stays at the end where rows arrive."""
        if not self._keys:
            return True
        return self._arrivals != "anywhere" and self.cursor == self._newest_index(len(self._keys))

    @property
    def row_count(self) -> int:
        return len(self._keys)

    def set_rows(self, keys: Sequence[Hashable], draw: Callable[[int], Text]) -> None:
        """Replace the rows: a key for each, and a function that returns the line at an index.

        The keys are all different. `draw` is called only for rows in sight.
        """
        previous, follows, key = self.cursor, self.follows_new_rows, self.key
        self._keys, self._draw = keys, draw
        index = self._newest_index(len(keys)) if follows else self._index_of(key, previous)
        shift = index - previous
        self.virtual_size = Size(self.size.width, len(keys) + bool(self._header))
        self.set_reactive(RowList.cursor, index)
        if self.key != key:
            self.post_message(self.CursorMoved(self, self.key))
        if follows:
            self._scroll_to_cursor()
        elif shift and self._arrivals != "anywhere":
            self.scroll_to(y=self.scroll_offset.y + shift, animate=False, immediate=True)
        self.refresh()

    def select(self, key: Hashable) -> None:
        """Move the cursor to a row, if it exists."""
        if key in self._keys:
            self.cursor = self._keys.index(key)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the lines of a region; the background style is computed once for all."""
        self._base = self.rich_style
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if self._header and y == 0:
            return self.heading(width).apply_style(self._base)
        row = y - bool(self._header) + self.scroll_offset.y
        if not self._keys and row == 0:
            return _strip(self, Text(self._empty, style="dim"), width).apply_style(self._base)
        if not 0 <= row < len(self._keys):
            return Strip.blank(width, self._base)
        strip = self.line(row, width).apply_style(self._base)
        if row != self.cursor:
            return strip
        return strip.apply_style(CURSOR if self.has_focus else BLURRED_CURSOR)

    def heading(self, width: int) -> Strip:
        return _strip(self, Text(self._header, style="bold"), width)

    def line(self, row: int, width: int) -> Strip:
        return _strip(self, self._draw(row), width)

    def click_heading(self, x: int) -> None:
        """Handle a click on the line above the rows, `x` characters from its left end."""

    def watch_cursor(self) -> None:
        self._scroll_to_cursor()
        self.post_message(self.CursorMoved(self, self.key))
        self.refresh()

    def validate_cursor(self, value: int) -> int:
        return max(0, min(value, len(self._keys) - 1))

    def action_move(self, rows: int) -> None:
        self.cursor += rows

    def action_page(self, pages: int) -> None:
        """Move the cursor by the height of the list."""
        self.cursor += pages * max(1, self._height() - 1)

    def action_end(self, index: int) -> None:
        """Move the cursor to the first row (0) or the last (-1)."""
        self.cursor = 0 if index == 0 else len(self._keys) - 1

    def action_choose(self) -> None:
        if self._keys:
            self.post_message(self.RowChosen(self, self.key))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the row; a click on the cursor chooses it."""
        if self._header and event.y == 0:
            self.click_heading(event.x)
            return
        row = event.y - bool(self._header) + self.scroll_offset.y
        if not 0 <= row < len(self._keys):
            return
        if row == self.cursor:
            self.action_choose()
        self.cursor = row

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._keys) + bool(self._header))
        self._scroll_to_cursor()

    def _newest_index(self, count: int) -> int:
        return max(0, count - 1) if self._arrivals == "bottom" else 0

    def _index_of(self, key: Hashable, otherwise: int) -> int:
        if key in self._keys:
            return self._keys.index(key)
        return self.validate_cursor(otherwise)

    def _height(self) -> int:
        return self.scrollable_content_region.height - bool(self._header)

    def _scroll_to_cursor(self) -> None:
        top, height = self.scroll_offset.y, self._height()
        if height <= 0:
            return
        if not top <= self.cursor < top + height:
            y = self.cursor if self.cursor < top else self.cursor - height + 1
            self.scroll_to(y=y, animate=False, immediate=True)


def _strip(widget: RowList, text: Text, width: int) -> Strip:
    line = text.copy()
    line.truncate(width, overflow="ellipsis", pad=True)
    segments = line.render(widget.app.console)
    return Strip([s for s in segments if s.text != "\n"])
