"""Why a run makes no progress: no update was accepted for a while, and something went wrong since.

Long training alone is no stall: without trouble, nothing is said.
"""

from __future__ import annotations

from common.clock import format_time
from common.protocol.kinds import EventKind
from coordinator.core.state import CoordinatorState
from coordinator.storage.journal import Journal

TROUBLE = {
    EventKind.REFUSED,
    EventKind.REJECTED,
    EventKind.QUARANTINED,
    EventKind.LEASE,
    EventKind.DEAD_LETTER,
    EventKind.FLOOD,
    EventKind.SCORES,
    EventKind.BASE_MODEL,
}
"""Kinds of events that explain a lack of updates."""
EVENTS = 100  # newest ones of the feed in which the trouble is looked for


def describe_stall(
    journal: Journal, state: CoordinatorState, started_at: float, now: float, patience_s: float
) -> str:
    """Return since when nobody makes progress, and the newest trouble; empty if there is none.

    Args:
        journal: Journal of the run.
        state: State of the run.
        started_at: Start of this coordinator, in seconds since the epoch.
        now: Seconds since the epoch.
        patience_s: Seconds without an update that are normal.
    """
    if state.paused or state.rounds or not state.store_up:
        return ""
    since = max(started_at, journal.last_accepted())
    if now - since < patience_s:
        return ""
    trouble = [e for e in journal.events(EVENTS) if e.kind in TROUBLE and e.at >= since]
    return f"no update since {format_time(since)}: {trouble[-1].text}" if trouble else ""
