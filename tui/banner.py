"""The line above the panes that says what is wrong, or that the run is over."""

from __future__ import annotations

from typing import Literal

from common.store.view import RunInfo
from tui.data.reader import Snapshot

COORDINATOR_SILENT_S = 10.0  # the coordinator writes every second
STORE_SILENT_S = 2.0  # the store is read twice a second

Level = Literal["", "note", "warning", "error"]


def banner(snapshot: Snapshot, name: str, now: float, frozen: bool = False) -> tuple[Level, str]:
    """Return level and text of the line; both are empty while all is well.

    Args:
        now: Time on the monotonic clock.
        frozen: True while the user has frozen the view.
    """
    age = now - snapshot.read_at
    if frozen and snapshot.view is not None:
        return "note", f"frozen {age:.0f} s ago; press space to continue"
    if snapshot.state == "replay":
        return "note", snapshot.detail
    if snapshot.view is not None and snapshot.view.info.status in ("finished", "failed"):
        return _run_over(snapshot.view.info)  # final, whether or not the store still answers
    match snapshot.state:
        case "connecting":
            return "note", "connecting to the store"
        case "waiting" if snapshot.view is None:
            return "note", f"waiting for run {name}; start it with `fccl coordinator`"
        case "waiting":
            return "warning", f"the store has lost run {name}; this view is {age:.0f} s old"
        case "lost" if snapshot.view is None:
            return "error", f"{snapshot.detail}; trying again"
        case "lost":
            return "error", f"{snapshot.detail}; trying again; this view is {age:.0f} s old"
    return _live_banner(snapshot, now)


def _live_banner(snapshot: Snapshot, now: float) -> tuple[Level, str]:
    assert snapshot.view is not None
    age, silence = now - snapshot.read_at, now - snapshot.changed_at
    if snapshot.view.info.status == "stopped":
        return _run_over(snapshot.view.info)
    if age > STORE_SILENT_S:
        return "warning", f"the store has not answered for {age:.0f} s"
    if silence > COORDINATOR_SILENT_S:
        remedy = "if it has died, continue with `fccl coordinator --resume`"
        return "warning", f"the coordinator has been silent for {silence:.0f} s; {remedy}"
    return "", ""


def _run_over(info: RunInfo) -> tuple[Level, str]:
    level: Level = "error" if info.status == "failed" else "note"
    return level, f"the run is over, {info.status}: {info.detail}"
