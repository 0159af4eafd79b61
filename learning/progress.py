"""The callback by which long work, such as downloads and pretraining, reports its progress."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[str, float], None]
"""Called with a description of the work and the share of it that is done, from 0 to 1."""


def ignore_progress(message: str, fraction: float) -> None:
    """Do nothing."""
