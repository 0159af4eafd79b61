"""What a command and a server have in common that are asked and give no answer of use."""

from __future__ import annotations

MAX_ANSWER = 64 * 1024
"""Bytes; a verdict is a line."""


class Unanswered(Exception):
    """There is no answer; the text says why, and holds nothing of what was asked."""


def late(timeout_s: float) -> Unanswered:
    """It took too long."""
    return Unanswered(f"gave no answer within {timeout_s:g} s")


def too_long() -> Unanswered:
    """It is over the limit."""
    return Unanswered(f"gave an answer of more than {MAX_ANSWER // 1024} KiB")
