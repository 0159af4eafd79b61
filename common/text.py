"""Text from outside, on its way to a terminal, a log or a file."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters and line breaks
    "\u202a-\u202e\u2066-\u206f"  # make what follows run in another direction
    "\ufeff\ufff9-\ufffb\ud800-\udfff]"  # marks that no text needs, and halves of characters
)


def one_line(text: str) -> str:
    """Return the text with spaces instead of line breaks, terminal escapes and overrides.

    Everything that belongs to a script stays: joiners (Persian, Hindi and emoji fall apart without
    them), combining marks, marks of direction, and characters newer than Python's tables.
    """
    return _UNSAFE.sub(" ", text)


def is_one_line(text: str) -> bool:
    """Return whether `one_line` would leave a text as it is."""
    return _UNSAFE.search(text) is None


def is_plain(text: str) -> bool:
    """Return whether a text has no NUL and can be written in UTF-8."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
