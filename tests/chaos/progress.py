"""Progress of a run, read from its journal: accepted updates, with the times they were first seen.

Times are those of this process, because the clocks of the others are moved.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Acceptance:
    """One accepted update."""

    seq: int
    task_id: str
    worker_id: str
    epoch: int
    issued_at: float  # when its attempt was seen first
    seen_at: float


@dataclass
class Progress:
    """Follower of one journal."""

    run: Path
    epoch: int = 0
    version: int = -1
    run_id: str = ""
    accepted: list[Acceptance] = field(default_factory=list)
    _issued: dict[tuple[str, int], float] = field(default_factory=dict)
    _attempts: int = 0

    def poll(self) -> None:
        """Read what is new; nothing while the journal cannot be read."""
        path = self.run / "run.db"
        if not path.exists():
            return
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as db:
                db.execute("BEGIN")
                self._read(db)
        except (sqlite3.Error, TypeError):  # or a table is still empty
            return

    def _read(self, db: sqlite3.Connection) -> None:
        now = time.monotonic()
        if not self.run_id:
            query = "SELECT value FROM meta WHERE key = 'run_id'"
            self.run_id = db.execute(query).fetchone()[0]
        self.epoch = db.execute("SELECT value FROM epoch").fetchone()[0]
        version = db.execute("SELECT MAX(version) FROM version").fetchone()[0]
        self.version = -1 if version is None else version
        attempts = db.execute(
            "SELECT rowid, task_id, attempt FROM attempt WHERE rowid > ?", (self._attempts,)
        )
        for row, task_id, attempt in attempts:
            self._issued[task_id, attempt] = now
            self._attempts = max(self._attempts, row)
        last = self.accepted[-1].seq if self.accepted else 0
        rows = db.execute(
            "SELECT seq, task_id, attempt, worker_id FROM accepted WHERE seq > ? ORDER BY seq",
            (last,),
        )
        for seq, task_id, attempt, worker_id in rows:
            issued = self._issued.get((task_id, attempt), now)
            self.accepted.append(Acceptance(seq, task_id, worker_id, self.epoch, issued, now))

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(f"file:{self.run}/run.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
