"""A long table of which only the lines in sight are drawn: for logs and a thousand versions.

Rows have keys. New rows leave the cursor and the scroll position on the row where they were, unless
the cursor rests on the end where rows arrive: then it goes with them. Sorted rows come anywhere:
there the cursor stays on its row, and the window where it is.
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
HELD = Style(bold=True, underline=True)  # the cursor while something else has the focus


class RowList(ScrollView, can_focus=True):
    """Lines with a cursor."""

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
        """The cursor is on another row."""

        def __init__(self, rows: RowList, key: Hashable) -> None:
            """`key` of the row, None without rows."""
            super().__init__()
            self.rows, self.key = rows, key

        @property
        def control(self) -> RowList:
            """The table."""
            return self.rows

    class RowChosen(CursorMoved):
        """Enter, or a second click, on a row."""

    def __init__(
        self,
        *,
        header: str = "",
        arrivals: Arrivals = "top",
        empty: str = "",
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        """No rows.

        Args:
            header: Stays above the rows; none without.
            arrivals: The end at which new rows come.
            empty: Said while there are none.
            id: Textual's.
            classes: Textual's.
        """
        super().__init__(id=id, classes=classes)
        self._header, self._arrivals, self._empty = header, arrivals, empty
        self._keys: Sequence[Hashable] = ()
        self._draw: Callable[[int], Text] = lambda _: Text()
        self._base = Style()

    @property
    def key(self) -> Hashable:
        """Of the row under the cursor; None without rows."""
        return self._keys[self.cursor] if self._keys else None

    @property
    def follows(self) -> bool:
        """Whether the cursor goes with the rows that arrive."""
        if not self._keys:
            return True
        return self._arrivals != "anywhere" and self.cursor == self._arriving(len(self._keys))

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._keys)

    def put(self, keys: Sequence[Hashable], draw: Callable[[int], Text]) -> None:
        """Show other rows.

        Args:
            keys: One for each row, all different.
            draw: The line of the row at an index; called for those in sight.
        """
        before, follows, key = self.cursor, self.follows, self.key
        self._keys, self._draw = keys, draw
        index = self._arriving(len(keys)) if follows else self._place(key, before)
        shift = index - before
        self.virtual_size = Size(self.size.width, len(keys) + bool(self._header))
        self.set_reactive(RowList.cursor, index)
        if self.key != key:
            self.post_message(self.CursorMoved(self, self.key))
        if follows:
            self._reveal()
        elif shift and self._arrivals != "anywhere":
            self.scroll_to(y=self.scroll_offset.y + shift, animate=False, immediate=True)
        self.refresh()

    def select(self, key: Hashable) -> None:
        """Put the cursor on a row, if it is there."""
        if key in self._keys:
            self.cursor = self._keys.index(key)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of a region; what they lie on is looked up once for all of them."""
        self._base = self.rich_style
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """One line on the screen."""
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
        return strip.apply_style(CURSOR if self.has_focus else HELD)

    def heading(self, width: int) -> Strip:
        """The line above the rows."""
        return _strip(self, Text(self._header, style="bold"), width)

    def line(self, row: int, width: int) -> Strip:
        """The line of the row at an index."""
        return _strip(self, self._draw(row), width)

    def heading_clicked(self, x: int) -> None:
        """Somebody clicked on the line above the rows, so many characters from its left."""

    def watch_cursor(self) -> None:
        """Keep it in sight, and tell."""
        self._reveal()
        self.post_message(self.CursorMoved(self, self.key))
        self.refresh()

    def validate_cursor(self, value: int) -> int:
        """Within the rows."""
        return max(0, min(value, len(self._keys) - 1))

    def action_move(self, rows: int) -> None:
        """Up or down."""
        self.cursor += rows

    def action_page(self, pages: int) -> None:
        """Up or down by what is in sight."""
        self.cursor += pages * max(1, self._height() - 1)

    def action_end(self, index: int) -> None:
        """To the first row, or the last."""
        self.cursor = 0 if index == 0 else len(self._keys) - 1

    def action_choose(self) -> None:
        """Tell that this row is meant."""
        if self._keys:
            self.post_message(self.RowChosen(self, self.key))

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the row; a click on the cursor chooses it."""
        if self._header and event.y == 0:
            self.heading_clicked(event.x)
            return
        row = event.y - bool(self._header) + self.scroll_offset.y
        if not 0 <= row < len(self._keys):
            return
        if row == self.cursor:
            self.action_choose()
        self.cursor = row

    def on_focus(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor looks different."""
        self.refresh()

    def on_resize(self) -> None:
        """Other lines are in sight."""
        self.virtual_size = Size(self.size.width, len(self._keys) + bool(self._header))
        self._reveal()

    def _arriving(self, count: int) -> int:
        return max(0, count - 1) if self._arrivals == "bottom" else 0

    def _place(self, key: Hashable, before: int) -> int:
        if key in self._keys:
            return self._keys.index(key)
        return self.validate_cursor(before)

    def _height(self) -> int:
        return self.scrollable_content_region.height - bool(self._header)

    def _reveal(self) -> None:
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
