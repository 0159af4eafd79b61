"""What the worker writes into a client's inbox: verdicts, what was learned, and what became of it.

θ of the client's own model is θ_global + unsent + riding + personal: differences to the global
version of the row. `unsent` waits for an update, `riding` is in one without a receipt, `personal`
was accepted and serves until the global version does as well. An accepted receipt only moves
`riding` to `personal`, so the client's model stays what it was; a refused one moves it back.

Every method that writes is one transaction. All but `settle` need the client's lock.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from common.protocol.fields import RowKind
from common.protocol.heartbeat import InboxFigures
from common.protocol.tensors import Tensors
from learning.evaluation.measurement import Measurement
from worker.incremental.inbox import schema
from worker.incremental.report import history, stream
from worker.incremental.report.history import BatchRecord

PARTS = ("unsent", "riding", "personal")
_ENTRY = "SELECT id, key, kind, fields, task, held, batch FROM item"


@dataclass(frozen=True)
class Entry:
    """One item of the inbox."""

    id: int
    key: str
    kind: RowKind
    fields: Mapping[str, str]
    task: str
    held: bool
    batch: int | None


@dataclass(frozen=True)
class LocalModel:
    """What a client has learned on top of a global version; sums to `current`."""

    version: int
    parts: Mapping[str, Tensors]
    current: Tensors
    ride: str


def question_and_answer(entry: Entry) -> tuple[str, str]:
    """What an item asks, and the answer that it gives."""
    fields = entry.fields
    match entry.kind:
        case "cls":
            return fields["text"], fields["label"]
        case "va":
            return fields["prompt"], fields["chosen"]
        case "sft":
            return f"{fields['instruction']}\n{fields['input']}".strip(), fields["output"]


def add_tensors(*tensors: Tensors) -> Tensors | None:
    """The sum, by name; None of nothing."""
    if not tensors:
        return None
    first, *others = tensors
    return {name: sum((t[name] for t in others), first[name]) for name in first}


class LearningStore:
    """One client's, opened for a moment."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            DataError: The file cannot be used.
        """
        self._path = path
        self._db = schema.connect(path)

    def close(self) -> None:
        """Leave it."""
        self._db.close()

    def __enter__(self) -> LearningStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # items

    def entries(self, *states: str, kind: RowKind | None = None, held: bool | None = None,
                newest: int | None = None) -> list[Entry]:  # fmt: skip
        """Items in these states, the oldest first; of many, the `newest`."""
        marks = ", ".join("?" * len(states))
        where, values = f"state IN ({marks})", list[Any](states)
        if kind is not None:
            where, values = where + " AND kind = ?", [*values, kind]
        if held is not None:
            where, values = where + " AND held = ?", [*values, int(held)]
        limit = -1 if newest is None else newest
        rows = self._all(f"{_ENTRY} WHERE {where} ORDER BY id DESC LIMIT ?", *values, limit)
        return [_entry(row) for row in reversed(rows)]

    def count(self, state: str) -> int:
        """Items in a state."""
        return int(self._all("SELECT count(*) FROM item WHERE state = ?", state)[0][0])

    def refuse(self, items: Sequence[int], reason: str) -> None:
        """Items that no batch can be made of."""
        with self._write():
            self._mark(items, "rejected", None, reason)

    # verdicts

    def accept(
        self,
        batch: BatchRecord,
        train: Sequence[int],
        held: Sequence[int],
        learned: Tensors,
        current: Tensors,
        measured: Mapping[str, tuple[Measurement, int]],
    ) -> None:
        """Keep what was learned.

        Args:
            batch: With its figures.
            train: Items that it was trained on.
            held: Items that it was measured by.
            learned: The shadow copy less the model that it began as; added to what is unsent.
            current: The shadow copy.
            measured: The shadow copy on each task of the stream ('' for the client's own rows), and
                on how many examples.
        """
        with self._write():
            number = self._batch(batch)
            self._mark(train, "learned", number, "")
            self._mark(held, "learned", number, "")
            self._all(f"UPDATE item SET held = 1 WHERE id IN ({_list(held)})")
            unsent = self._part("unsent")
            total = learned if unsent is None else add_tensors(unsent, learned)
            self._put("unsent", batch.run, batch.version, total)
            self._put("current", batch.run, batch.version, current)
            for task, (found, count) in measured.items():
                self._all(
                    "INSERT INTO measure VALUES (?, ?, ?, ?, ?)",
                    *(number, task, found.loss, found.accuracy, count),
                )

    def reject(self, batch: BatchRecord, items: Sequence[int], reason: str) -> None:
        """Keep the items with the reason, and the model as it was.

        Args:
            batch: Its reason is told to others.
            items: That it was to learn.
            reason: For the client alone.
        """
        with self._write():
            self._mark(items, "rejected", self._batch(batch), reason)

    # what was learned

    def local(self, run: str) -> LocalModel | None:
        """What the client has learned on top of the global version; None where it has nothing."""
        rows = self._all("SELECT role, version, ride, tensors FROM local WHERE run = ?", run)
        found = {role: (version, ride, tensors) for role, version, ride, tensors in rows}
        if "current" not in found:
            return None
        version, _, current = found["current"]
        parts = {role: load(found[role][2]) for role in PARTS if role in found}
        ride = found["riding"][1] if "riding" in found else ""
        return LocalModel(version, parts, load(current), ride)

    def rebase(
        self, run: str, version: int, current: Tensors | None, parts: Mapping[str, Tensors]
    ) -> None:
        """Replace what was learned: on another version, or (`current` None) nothing at all."""
        with self._write():
            self._all("DELETE FROM local")
            if current is not None:
                self._put("current", run, version, current)
                for role, tensors in parts.items():
                    self._put(role, run, version, tensors)

    def drop(self, batch: BatchRecord) -> None:
        """The newest version leaves no way to keep what was learned and not sent."""
        with self._write():
            number = self._batch(batch)
            self._all("DELETE FROM local")
            self._all(
                "UPDATE item SET state = 'rejected', batch = ?, reason = ? WHERE state = 'learned'",
                *(number, batch.reason),
            )

    def enter(self, run: str) -> None:
        """Begin a run: what another one learned and did not send is learned again."""
        with self._write():
            others = self._all("SELECT count(*) FROM local WHERE run != ?", run)[0][0]
            self._all("DELETE FROM local WHERE run != ?", run)
            if others:
                self._all(
                    "UPDATE item SET state = 'waiting', batch = NULL WHERE state = 'learned'"
                    " AND batch IN (SELECT id FROM batch WHERE run != ?)",
                    run,
                )

    # on its way

    def ride(self, ride: str) -> int:
        """What is unsent goes with an update; the number of items behind it."""
        with self._write():
            if self._part("unsent") is None or self._part("riding") is not None:
                return 0
            self._all("UPDATE local SET role = 'riding', ride = ? WHERE role = 'unsent'", ride)
            self._all(
                "UPDATE batch SET ride = ? WHERE ride = '' AND verdict = 'accepted'"
                " AND id IN (SELECT batch FROM item WHERE state = 'learned')",
                ride,
            )
            found = self._all(f"SELECT count(*) FROM item WHERE {_RIDING}", ride)
            return int(found[0][0])

    def settle(self, ride: str, *, accepted: bool) -> int:
        """An update that carried something has its receipt; the number of items behind it."""
        with self._write():
            rows = self._all(
                "SELECT run, version FROM local WHERE role = 'riding' AND ride = ?", ride
            )
            if not rows:
                return 0
            role, ((run, version),) = "personal" if accepted else "unsent", rows
            parts = [part for part in (self._part(role), self._part("riding")) if part is not None]
            self._put(role, run, version, add_tensors(*parts))
            self._all("DELETE FROM local WHERE role = 'riding'")
            count = int(self._all(f"SELECT count(*) FROM item WHERE {_RIDING}", ride)[0][0])
            if accepted:
                self._all(f"UPDATE item SET state = 'settled' WHERE {_RIDING}", ride)
            else:
                self._all("UPDATE batch SET ride = '' WHERE ride = ?", ride)
            return count

    # figures

    def row(self, client_id: str) -> InboxFigures:
        """What the heartbeat tells of it."""
        counts = dict(self._all("SELECT state, count(*) FROM item GROUP BY state"))
        newest = self._all(
            "SELECT verdict, reason, at, figures FROM batch ORDER BY id DESC LIMIT 1"
        )
        row: tuple[Any, ...] = newest[0] if newest else ("", "", 0.0, "{}")
        verdict, reason, at, text = row
        figures = json.loads(text)
        found = stream.stream_figures(self.measures())
        return InboxFigures(
            client_id=client_id,
            waiting=counts.get("waiting", 0),
            learned=counts.get("learned", 0),
            settled=counts.get("settled", 0),
            rejected=counts.get("rejected", 0),
            verdict=verdict,
            reason=reason[:500],
            at=at,
            **{name: _loss(figures.get(name)) for name in _LOSSES},
            forgetting=found.forgetting,
            backward_transfer=found.backward_transfer,
        )

    def measures(self) -> list[stream.TaskMeasurement]:
        """The newest stream as it was measured, in order."""
        found = history.streams(self._db)
        return list(found[-1].measures) if found else []

    # the file

    def _batch(self, batch: BatchRecord) -> int:
        self._all(
            "INSERT INTO batch (run, version, kind, task, at, items, held, steps, seconds, verdict,"
            " reason, figures) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(batch.run, batch.version, batch.kind, batch.task, batch.at, batch.items),
            *(batch.held, batch.steps, batch.seconds, batch.verdict, batch.reason),
            json.dumps(dict(batch.figures)),
        )
        return int(self._all("SELECT last_insert_rowid()")[0][0])

    def _mark(self, items: Sequence[int], state: str, batch: int | None, reason: str) -> None:
        """Only those that still wait: what the user took back meanwhile stays taken back."""
        self._all(
            "UPDATE item SET state = ?, batch = ?, reason = ?"
            f" WHERE state = 'waiting' AND id IN ({_list(items)})",
            *(state, batch, reason),
        )

    def _part(self, role: str) -> Tensors | None:
        rows = self._all("SELECT tensors FROM local WHERE role = ?", role)
        return load(rows[0][0]) if rows else None

    def _put(self, role: str, run: str, version: int, tensors: Tensors | None) -> None:
        self._all(
            "INSERT OR REPLACE INTO local (role, run, version, tensors) VALUES (?, ?, ?, ?)",
            *(role, run, version, save(dict(tensors or {}))),
        )

    def _all(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise schema.unusable(self._path, error) from None

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._all("BEGIN IMMEDIATE")
        try:
            yield
            self._all("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.rollback()
            raise


_RIDING = "state = 'learned' AND batch IN (SELECT id FROM batch WHERE ride = ?)"
_LOSSES = ("new_before", "new_after", "anchor_before", "anchor_after")


def _entry(row: tuple[Any, ...]) -> Entry:
    number, key, kind, fields, task, held, batch = row
    return Entry(number, key, kind, json.loads(fields), task, bool(held), batch)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def _loss(found: Mapping[str, Any] | None) -> float | None:
    """As a record has it: a loss of nothing is told as next to nothing."""
    return None if found is None else min(max(float(found["loss"]), 1e-9), 1e4)
