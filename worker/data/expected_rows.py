"""Checks of a site's rows against what its run learns from, before the network is used.

Pure functions without torch, because a token must not be spent on rows of which no task could be
trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data.row_types import LabelledText, Row
from learning.data.rows import list_names
from learning.data.splits import SIDES, row_rank, split_rows

FIELDS: Mapping[RowKind, str] = {
    "sft": "instruction, output",
    "va": "prompt, chosen, rejected",
    "kto": "prompt, completion, label",
    "cls": "text, label",
}
"""Fields of a row of each kind, for messages."""
_LEAST_TRAINING: Mapping[RowKind, int] = {"kto": 2}  # a batch of one has no KL term
_SHOWN = 10  # labels that are named

RowsByKind = Mapping[RowKind, Sequence[Row]]


@dataclass(frozen=True)
class ExpectedRows:
    """What a run learns from, as far as it is known.

    Attributes:
        kinds: Empty where the token of an earlier release does not tell.
        labels: Classes of a run that classifies; empty where they are not known.
    """

    kinds: tuple[RowKind, ...] = ()
    labels: tuple[str, ...] = ()

    def describe(self) -> str:
        return "; ".join(f"{kind}: {FIELDS[kind]}" for kind in self.kinds)


ANY_ROWS = ExpectedRows()


def check_kinds(source: str, found: RowsByKind, expected: ExpectedRows, remedy: str) -> None:
    """Raise `DataError` if no row is of a kind that the run learns from."""
    if not expected.kinds or any(found.get(kind) for kind in expected.kinds):
        return
    kind = max(found, key=lambda each: len(found[each]))
    raise DataError(
        f"{source} has {kind} rows ({FIELDS[kind]}), but the run learns from {expected.describe()}",
        remedy,
    )


def check_sides(client: str, found: RowsByKind, expected: ExpectedRows) -> None:
    """Check that a client's rows of each expected kind suffice for all three sides.

    Where the kinds are not known, those of one kind have to.

    Raises:
        DataError: There are too few rows.
    """
    kinds = [kind for kind in expected.kinds or found if found.get(kind)]
    short = [kind for kind in kinds if not _suffice(kind, found[kind])]
    if not short or (not expected.kinds and len(short) < len(kinds)):
        return
    kind = max(short, key=lambda each: len(found[each]))
    rows = found[kind]
    distinct = len({row_rank(row, "client") for row in rows})
    note = f", {distinct} different," if distinct < len(rows) else ""
    least = SIDES - 1 + _LEAST_TRAINING.get(kind, 1)
    what = "with different prompts " if kind in ("va", "kto") else ""
    raise DataError(
        f"{client} has {len(rows)} usable {kind} rows{note} which are too few: training, holdout"
        " and validation each need their own",
        f"give at least {least} different rows {what}with --data; some dozens are useful",
    )


def _suffice(kind: RowKind, rows: Sequence[Row]) -> bool:
    sides = split_rows(rows)
    enough = len(sides.train) >= _LEAST_TRAINING.get(kind, 1)
    return enough and bool(sides.holdout) and bool(sides.validation)


def keep_known_labels(
    source: str,
    rows: Sequence[Row],
    expected: ExpectedRows,
    print_line: Callable[[str], None],
) -> list[Row]:
    """Return the rows whose label the run has; name and count the other labels.

    Raises:
        DataError: No row has one of the run's labels.
    """
    known = set(expected.labels)
    other = Counter(
        row.label
        for row in rows
        if isinstance(row, LabelledText) and known and row.label not in known
    )
    if not other:
        return list(rows)
    more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
    counts = ", ".join(f"{name!r} {count}" for name, count in other.most_common(_SHOWN)) + more
    run = list_names(expected.labels)
    if other.total() == len(rows):
        raise DataError(
            f"{source} has only labels that the run does not have: {counts}",
            f"the run's labels are {run}; rename those of the rows, or ask its coordinator",
        )
    print_line(
        f"skipped {other.total()} cls rows of {source} with labels that the run does not have:"
        f" {counts}; its labels are {run}"
    )
    return [row for row in rows if not (isinstance(row, LabelledText) and row.label in other)]
