"""Seconds of a task by part, in words and as figures: for logs, the TUI, and the report."""

from __future__ import annotations

from common.protocol.updates import ContributionStats

TRAINING = "training"


def seconds_by_part(stats: ContributionStats) -> dict[str, float]:
    """Return the seconds of every part of a task; empty where a client did not report them."""
    if stats.seconds is None:
        return {}
    return {TRAINING: stats.train_seconds, **stats.seconds.model_dump()}


def overhead_share(stats: ContributionStats) -> float | None:
    """Return the share of a task's time that was not training; None if it is unknown."""
    parts = seconds_by_part(stats)
    total = sum(parts.values())
    return 1 - parts[TRAINING] / total if total else None


def describe_seconds(stats: ContributionStats) -> str:
    """Return the time of a task in words, without parts that took no time worth mentioning."""
    text = f"{stats.train_seconds:.1f} s"
    others = {k: v for k, v in seconds_by_part(stats).items() if k != TRAINING}
    if not others:
        return text
    named = ", ".join(f"{name} {spent:.1f}" for name, spent in others.items() if spent >= 0.05)
    return f"{text} of training and {sum(others.values()):.1f} s more" + (
        f" ({named})" if named else ""
    )
