"""What a command and a server have in common that are asked and give no answer of use."""

from __future__ import annotations

from threading import Event

MAX_ANSWER = 64 * 1024
"""Bytes; a verdict is a line."""


NEVER = Event()
"""Of those who wait until the time is up."""


class ValidatorError(Exception):
    """There is no answer; the text says why, and holds nothing of what was asked."""


def late(timeout_s: float) -> ValidatorError:
    """It took too long."""
    return ValidatorError(f"gave no answer within {timeout_s:g} s")


def stopped() -> ValidatorError:
    """Nobody waits for it any more."""
    return ValidatorError("was not waited for")


def too_long() -> ValidatorError:
    """It is over the limit."""
    return ValidatorError(f"gave an answer of more than {MAX_ANSWER // 1024} KiB")
