"""What a command and a server have in common that are asked and give no answer of use."""

from __future__ import annotations

from threading import Event

MAX_ANSWER = 64 * 1024
"""Bytes; a verdict is a line."""


NEVER = Event()
"""Of those who wait until the time is up."""


class Unanswered(Exception):
    """There is no answer; the text says why, and holds nothing of what was asked."""


def late(timeout_s: float) -> Unanswered:
    """It took too long."""
    return Unanswered(f"gave no answer within {timeout_s:g} s")


def stopped() -> Unanswered:
    """Nobody waits for it any more."""
    return Unanswered("was not waited for")


def too_long() -> Unanswered:
    """It is over the limit."""
    return Unanswered(f"gave an answer of more than {MAX_ANSWER // 1024} KiB")
