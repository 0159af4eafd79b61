"""The one line over the view that says what is wrong, or over. Pure."""

from __future__ import annotations

from typing import Literal

from common.store.view import RunInfo
from tui.data.reader import Snapshot

SILENT_S = 10.0  # the coordinator writes every second
OLD_S = 2.0  # what is shown is read twice a second

Level = Literal["", "note", "warning", "error"]


def banner(snapshot: Snapshot, name: str, now: float, frozen: bool = False) -> tuple[Level, str]:
    """How serious it is, and what to say; empty while all is as it should be.

    Args:
        snapshot: What is shown.
        name: Of the run.
        now: On the monotonic clock.
        frozen: The view is held still, whatever happens.
    """
    age = now - snapshot.read_at
    if frozen and snapshot.view is not None:
        return "note", f"held still {age:.0f} s ago; space goes on"
    if snapshot.state == "replay":
        return "note", snapshot.detail
    if snapshot.view is not None and snapshot.view.info.status in ("finished", "failed"):
        return _over(snapshot.view.info)  # nothing can change, so it does not matter who answers
    match snapshot.state:
        case "connecting":
            return "note", "connecting"
        case "waiting" if snapshot.view is None:
            return "note", f"waiting for run {name}: `fccl coordinator` begins it"
        case "waiting":
            return "warning", f"the store has lost run {name}; what is shown is {age:.0f} s old"
        case "lost" if snapshot.view is None:
            return "error", f"{snapshot.detail}; trying again"
        case "lost":
            return "error", f"{snapshot.detail}; trying again; what is shown is {age:.0f} s old"
    return _live(snapshot, now)


def _live(snapshot: Snapshot, now: float) -> tuple[Level, str]:
    assert snapshot.view is not None
    info, age, silent = snapshot.view.info, now - snapshot.read_at, now - snapshot.changed_at
    if info.status == "stopped":
        return _over(info)
    if age > OLD_S:
        return "warning", f"no answer from the store for {age:.0f} s"
    if silent > SILENT_S:
        how = "if it has died, `fccl coordinator --resume` goes on"
        return "warning", f"the coordinator has said nothing for {silent:.0f} s; {how}"
    return "", ""


def _over(info: RunInfo) -> tuple[Level, str]:
    level: Level = "error" if info.status == "failed" else "note"
    return level, f"the run is over, {info.status}: {info.detail}"
