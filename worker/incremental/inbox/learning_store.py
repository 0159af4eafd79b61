"""The worker's side of a client's inbox: verdicts, learned tensors, and the update that has them.

θ of the client's own model is θ_global + unsent + riding + personal, where each part is a
difference to the global version of its row. `unsent` waits for an update; `riding` is part of an
update without a receipt; `personal` was in an accepted update, and is kept until the global version
is as good. An accepted receipt only moves `riding` to `personal`, so the client's model stays what
it was; any other receipt moves it back to `unsent`.

Each writing method is one transaction. All but `apply_receipt` require the client's lock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load, save

from common.protocol.fields import RowKind
from common.protocol.heartbeat import InboxFigures
from common.protocol.tensors import Tensors
from learning.evaluation.measurement import Measurement
from worker.incremental.inbox.items import StoredItem
from worker.incremental.inbox.schema import InboxFile
from worker.incremental.report import history
from worker.incremental.report.history import BatchRecord
from worker.incremental.report.stream import stream_figures

PARTS = ("unsent", "riding", "personal")
_CARRIED = "state = 'learned' AND batch IN (SELECT id FROM batch WHERE ride = ?)"
_LOSSES = ("new_before", "new_after", "anchor_before", "anchor_after")


@dataclass(frozen=True)
class LocalModel:
    """What a client has learned on top of a global version."""

    version: int  # the global version
    parts: Mapping[str, Tensors]  # differences to it, by their names in `PARTS`
    current: Tensors  # θ of the client's model: the global version plus all parts
    update_id: str  # of the update that carries the part `riding`, if there is one


def add_tensors(*tensors: Tensors) -> Tensors | None:
    """Return the sum by name; None without arguments."""
    if not tensors:
        return None
    first, *others = tensors
    return {name: sum((t[name] for t in others), first[name]) for name in first}


class LearningStore:
    """Open inbox file of one client, for use by one thread."""

    def __init__(self, path: Path) -> None:
        self._file = InboxFile(path)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> LearningStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def items(
        self,
        *states: str,
        kind: RowKind | None = None,
        held_out: bool | None = None,
        newest: int | None = None,
    ) -> list[StoredItem]:
        """Return items in these states, the oldest first; of many, the `newest`."""
        marks = ", ".join("?" * len(states))
        where, values = f"state IN ({marks})", list[Any](states)
        if kind is not None:
            where, values = where + " AND kind = ?", [*values, kind]
        if held_out is not None:
            where, values = where + " AND held = ?", [*values, int(held_out)]
        rows = self._file.query(
            f"SELECT {StoredItem.COLUMNS} FROM item WHERE {where} ORDER BY id DESC LIMIT ?",
            *(*values, -1 if newest is None else newest),
        )
        return [StoredItem.from_row(row) for row in reversed(rows)]

    def reject_items(self, items: Sequence[int], reason: str) -> None:
        with self._file.transaction():
            self._mark(items, "rejected", None, reason)

    # verdicts

    def accept(
        self,
        batch: BatchRecord,
        train: Sequence[int],
        held_out: Sequence[int],
        learned: Tensors,
        current: Tensors,
        measured: Mapping[str, tuple[Measurement, int]],
    ) -> None:
        """Keep what a batch has learned, from the items with these ids.

        Args:
            learned: Difference between the trained copy and the model that it started from; it is
                added to the part `unsent`.
            current: θ of the trained copy.
            measured: Measurement of the trained copy on each task of the stream ('' is the client's
                own rows), and the number of examples.
        """
        with self._file.transaction():
            number = self._insert_batch(batch)
            self._mark(train, "learned", number, "")
            self._mark(held_out, "learned", number, "")
            self._file.change(f"UPDATE item SET held = 1 WHERE id IN ({_id_list(held_out)})")
            unsent = self._part("unsent")
            total = learned if unsent is None else add_tensors(unsent, learned)
            self._put_part("unsent", batch.run, batch.version, total)
            self._put_part("current", batch.run, batch.version, current)
            for task, (found, count) in measured.items():
                self._file.change(
                    "INSERT INTO measure VALUES (?, ?, ?, ?, ?)",
                    *(number, task, found.loss, found.accuracy, count),
                )

    def reject(self, batch: BatchRecord, items: Sequence[int], reason: str) -> None:
        """Reject the items of a batch and leave the model as it is.

        The reason of the items stays on this machine; that of the batch may be shown elsewhere.
        """
        with self._file.transaction():
            self._mark(items, "rejected", self._insert_batch(batch), reason)

    # the client's model

    def local_model(self, run: str) -> LocalModel | None:
        """Return what the client has learned in a run; None if it has learned nothing."""
        rows = self._file.query("SELECT role, version, ride, tensors FROM local WHERE run = ?", run)
        found = {role: (version, ride, tensors) for role, version, ride, tensors in rows}
        if "current" not in found:
            return None
        version, _, current = found["current"]
        parts = {role: load(found[role][2]) for role in PARTS if role in found}
        update_id = found["riding"][1] if "riding" in found else ""
        return LocalModel(version, parts, load(current), update_id)

    def rebase(
        self, run: str, version: int, current: Tensors | None, parts: Mapping[str, Tensors]
    ) -> None:
        """Replace the client's model by one on another version, or remove it (`current` None)."""
        with self._file.transaction():
            self._file.change("DELETE FROM local")
            if current is not None:
                self._put_part("current", run, version, current)
                for role, tensors in parts.items():
                    self._put_part(role, run, version, tensors)

    def discard(self, batch: BatchRecord) -> None:
        """Remove the client's model and reject its learned items, with the batch's reason."""
        with self._file.transaction():
            number = self._insert_batch(batch)
            self._file.change("DELETE FROM local")
            self._file.change(
                "UPDATE item SET state = 'rejected', batch = ?, reason = ? WHERE state = 'learned'",
                *(number, batch.reason),
            )

    def begin_run(self, run: str) -> None:
        """Let items wait again that another run has learned and not sent."""
        with self._file.transaction():
            if self._file.change("DELETE FROM local WHERE run != ?", run):
                self._file.change(
                    "UPDATE item SET state = 'waiting', batch = NULL WHERE state = 'learned'"
                    " AND batch IN (SELECT id FROM batch WHERE run != ?)",
                    run,
                )

    # updates

    def attach_to_update(self, update_id: str) -> int:
        """Make the part `unsent` part of an update; return the number of items behind it."""
        with self._file.transaction():
            if self._part("unsent") is None or self._part("riding") is not None:
                return 0
            self._file.change(
                "UPDATE local SET role = 'riding', ride = ? WHERE role = 'unsent'", update_id
            )
            self._file.change(
                "UPDATE batch SET ride = ? WHERE ride = '' AND verdict = 'accepted'"
                " AND id IN (SELECT batch FROM item WHERE state = 'learned')",
                update_id,
            )
            return self._count_carried(update_id)

    def apply_receipt(self, update_id: str, *, accepted: bool) -> int:
        """Apply the receipt of an update; return the number of items that it carried."""
        with self._file.transaction():
            rows = self._file.query(
                "SELECT run, version FROM local WHERE role = 'riding' AND ride = ?", update_id
            )
            if not rows:
                return 0
            role, ((run, version),) = "personal" if accepted else "unsent", rows
            parts = [part for part in (self._part(role), self._part("riding")) if part is not None]
            self._put_part(role, run, version, add_tensors(*parts))
            self._file.change("DELETE FROM local WHERE role = 'riding'")
            count = self._count_carried(update_id)
            if accepted:
                self._file.change(f"UPDATE item SET state = 'settled' WHERE {_CARRIED}", update_id)
            else:
                self._file.change("UPDATE batch SET ride = '' WHERE ride = ?", update_id)
            return count

    def figures(self, client_id: str) -> InboxFigures:
        counts = self._file.item_counts()
        newest = self._file.query(
            "SELECT verdict, reason, at, figures FROM batch ORDER BY id DESC LIMIT 1"
        )
        row: tuple[Any, ...] = newest[0] if newest else ("", "", 0.0, "{}")
        verdict, reason, at, figures = row
        measured = json.loads(figures)
        streams = history.streams(self._file)
        found = stream_figures(streams[-1].measurements if streams else ())
        return InboxFigures(
            client_id=client_id,
            waiting=counts["waiting"],
            learned=counts["learned"],
            settled=counts["settled"],
            rejected=counts["rejected"],
            verdict=verdict,
            reason=reason[:500],
            at=at,
            **{name: _loss(measured.get(name)) for name in _LOSSES},
            forgetting=found.forgetting,
            backward_transfer=found.backward_transfer,
        )

    def _insert_batch(self, batch: BatchRecord) -> int:
        self._file.change(
            "INSERT INTO batch (run, version, kind, task, at, items, held, steps, seconds, verdict,"
            " reason, figures) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(batch.run, batch.version, batch.kind, batch.task, batch.at, batch.items),
            *(batch.held, batch.steps, batch.seconds, batch.verdict, batch.reason),
            json.dumps(dict(batch.figures)),
        )
        return int(self._file.query("SELECT last_insert_rowid()")[0][0])

    def _mark(self, items: Sequence[int], state: str, batch: int | None, reason: str) -> None:
        """Change only items that still wait: the user may have removed or replaced one since."""
        self._file.change(
            "UPDATE item SET state = ?, batch = ?, reason = ?"
            f" WHERE state = 'waiting' AND id IN ({_id_list(items)})",
            *(state, batch, reason),
        )

    def _count_carried(self, update_id: str) -> int:
        rows = self._file.query(f"SELECT count(*) FROM item WHERE {_CARRIED}", update_id)
        return int(rows[0][0])

    def _part(self, role: str) -> Tensors | None:
        rows = self._file.query("SELECT tensors FROM local WHERE role = ?", role)
        return load(rows[0][0]) if rows else None

    def _put_part(self, role: str, run: str, version: int, tensors: Tensors | None) -> None:
        self._file.change(
            "INSERT OR REPLACE INTO local (role, run, version, tensors) VALUES (?, ?, ?, ?)",
            *(role, run, version, save(dict(tensors or {}))),
        )


def _id_list(numbers: Sequence[int]) -> str:
    return ", ".join(str(int(number)) for number in numbers)


def _loss(found: Mapping[str, Any] | None) -> float | None:
    """Return a loss in the range that a record allows, where zero is not a loss."""
    return None if found is None else min(max(float(found["loss"]), 1e-9), 1e4)
