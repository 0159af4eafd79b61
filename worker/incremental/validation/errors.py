"""Failure of an external validator, whether it is a command or a server."""

from __future__ import annotations

MAX_ANSWER = 64 * 1024
"""Limit on the bytes of an answer, which is a line of JSON."""


class ValidatorError(Exception):
    """The validator gave no usable answer; the text says why, and contains nothing it was sent."""


def timed_out(timeout_s: float) -> ValidatorError:
    return ValidatorError(f"gave no answer within {timeout_s:g} s")


def cancelled() -> ValidatorError:
    return ValidatorError("was cancelled")


def answer_too_long() -> ValidatorError:
    return ValidatorError(f"gave an answer of more than {MAX_ANSWER // 1024} KiB")
