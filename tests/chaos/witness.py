"""Witness: what the workers of a federation know, written down apart from their own state.

    WITNESS/updates/TASK.ATTEMPT.SHA12   each update as it was spooled, before it was published
    WITNESS/receipts.jsonl               each receipt that a worker has read; lines may repeat

The ledger checker compares the coordinator's account with this. The directory is on another disk
than the one that the tests fill.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "FCCL_CHAOS_WITNESS"
UPDATES = "updates"
RECEIPTS = "receipts.jsonl"


def make(path: Path) -> None:
    (path / UPDATES).mkdir(parents=True)
    (path / RECEIPTS).touch()


def updates(path: Path) -> list[Path]:
    """Return the files of all updates, the oldest first."""
    files = [file for file in (path / UPDATES).iterdir() if not file.name.startswith(".")]
    return sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))


def install() -> None:
    """Let the worker of this process write down what it spools and which receipts it reads."""
    path = Path(os.environ[VARIABLE])
    from worker.publisher import Publisher
    from worker.spool import Slot

    put_update: Callable[..., Any] = Slot.put_update
    settle: Callable[..., Any] = Publisher._settle

    def put_and_copy(self: Slot, update: Any, data: bytes) -> Any:
        from common.protocol.wire import pack

        # Before the worker keeps it itself: from then on it may be published at any time.
        _copy(path, f"{update.task_id}.{update.attempt}", pack(update, data))
        return put_update(self, update, data)

    def note_and_settle(self: Publisher, pending: Any, receipt: Any) -> None:
        _note(path, pending, receipt)
        settle(self, pending, receipt)

    Slot.put_update = put_and_copy  # type: ignore[method-assign]
    Publisher._settle = note_and_settle  # type: ignore[method-assign]


def _copy(path: Path, update_id: str, frame: bytes) -> None:
    target = path / UPDATES / f"{update_id}.{hashlib.sha256(frame).hexdigest()[:12]}"
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_bytes(frame)
    temporary.replace(target)


def _note(path: Path, pending: Any, receipt: Any) -> None:
    line = {
        "task_id": receipt.task_id,
        "attempt": receipt.attempt,
        "sent_attempt": pending.attempt,
        "state": receipt.state,
        "reason": receipt.reason,
        "evaluation": pending.is_evaluation,
        "process": os.getpid(),
    }
    number = os.open(path / RECEIPTS, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(number, json.dumps(line).encode() + b"\n")  # one write: lines do not mix
    finally:
        os.close(number)
