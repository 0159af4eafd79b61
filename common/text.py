"""Text from outside, on its way to a terminal, a log or a file."""

from __future__ import annotations

_JOINERS = "\u200c\u200d"  # of Persian, Hindi and emoji: without them words fall apart


def one_line(text: str) -> str:
    """Return the text with spaces instead of line breaks and terminal escapes."""
    return "".join(char if char.isprintable() or char in _JOINERS else " " for char in text)


def is_plain(text: str) -> bool:
    """Return whether a text has no NUL and can be written in UTF-8."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
