"""Totals over the whole history of a run, each kept by reading only the rows that were added.

`fccl status` needs them every second. No row of these tables is ever deleted, and those that may
change are not counted before they can change no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class JournalTotals:
    """Totals of one journal; `rows` runs a query and returns its rows."""

    def __init__(self, rows: Callable[..., list[Any]]) -> None:
        self._rows = rows
        self._receipts: Counter[str] = Counter()
        self._newest_receipt = 0
        self._scores: tuple[int, float, int] = (0, 0.0, 0)
        self._newest_score = 0
        self._started: dict[str, float] = {}
        self._newest_start = {"attempt": 0, "evaluation": 0}

    def receipt_counts(self) -> dict[str, int]:
        """Return how many training tasks were closed, by state of the receipt."""
        query = "SELECT state, COUNT(*), MAX(rowid) FROM receipt WHERE rowid > ? GROUP BY state"
        for state, count, newest in self._rows(query, self._newest_receipt):
            self._receipts[state] += count
            self._newest_receipt = max(self._newest_receipt, newest)
        return dict(self._receipts)

    def score_cost(self) -> tuple[int, float, int]:
        """Return number, computing seconds and bytes of all scores of updates."""
        query = (
            "SELECT COUNT(*), TOTAL(seconds), COALESCE(SUM(nbytes), 0), MAX(rowid) FROM score"
            " WHERE rowid > ?"
        )
        [(count, seconds, nbytes, newest)] = self._rows(query, self._newest_score)
        known = self._scores
        self._scores = (known[0] + count, known[1] + seconds, known[2] + nbytes)
        self._newest_score = newest or self._newest_score
        return self._scores

    def first_issues(self) -> Mapping[str, float]:
        """Return when each client got its first task or evaluation, in seconds since the epoch."""
        self._add_starts("attempt", "attempt JOIN task USING (task_id)")
        self._add_starts("evaluation", "evaluation")
        return self._started

    def _add_starts(self, table: str, source: str) -> None:
        query = (
            f"SELECT client_id, MIN(issued_at), MAX({table}.rowid) FROM {source}"
            f" WHERE {table}.rowid > ? GROUP BY client_id"
        )
        for client, at, newest in self._rows(query, self._newest_start[table]):
            self._started[client] = min(at, self._started.get(client, at))
            self._newest_start[table] = max(self._newest_start[table], newest)
