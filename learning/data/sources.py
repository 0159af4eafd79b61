"""Rows of a run by kind, read or synthesised, and the selection of those that the model can use.

First step of the data path. A row that no model of this length can learn from is left out here,
before rows are dealt, so that no client is dealt rows that it cannot use; how many, and why, is
kept for the report. Next: `learning.data.shards`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from common.errors import ConfigError, DataError
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.row_parser import COLUMN_NAMES
from learning.data.row_types import LabelledText, Row
from learning.data.rows import LoadedRows
from learning.objectives.registry import Objective
from learning.synthetic import instructions as synthetic
from learning.synthetic import preferences as synthetic_preferences
from learning.synthetic import sentiment

SYNTHETIC = "synthetic"
MAX_CLASSES = 1000
"""Most classes of a run; their names travel with every task."""
_MAX_NAMES = 32 * 1024  # bytes of all names: half of what a message's header may have
_SHOWN = 5  # skipped rows that are named one by one
_VALUE = re.compile(r"""\b(is|has) ('.*'|".*"|\d+)(?=[ ,])""")


@dataclass(frozen=True)
class SourceSummary:
    """What became of the rows of one source.

    Attributes:
        source: Name in the configuration.
        read: Rows that the source has.
        skipped: Rows left out, by reason.
        truncated: Rows that are used without their end.
        used: Rows that are dealt to clients or held out.
    """

    source: str
    read: int
    skipped: Mapping[str, int]
    truncated: int
    used: int

    def fields(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self)

    def line(self) -> str:
        """Return the summary as a line for people."""
        reasons = "".join(f"; {count}: {reason}" for reason, count in self.skipped.items())
        cut = f"; {self.truncated} used without their end" if self.truncated else ""
        return f"{self.source}: {self.used} of {self.read} rows can be used{reasons}{cut}"


def load_source(
    kind: RowKind,
    source: str,
    *,
    count: int,
    seed: int,
    columns: Mapping[str, str],
    labels: Sequence[str],
    on_message: Callable[[str], None],
) -> LoadedRows[Row]:
    """Load the rows of a source.

    Args:
        source: `synthetic`, a file, or a hub data set id.
        count: Number of rows to make, when synthetic.
        seed: Seed of synthetic rows.
        columns: Field → column of the source, where it is not found by itself; fields of other
            kinds are for other sources.
        labels: The declared classes; empty takes any.
        on_message: Called with a line for each of the first skipped rows.

    Raises:
        DataError: The source is out of reach, or has no usable row.
        ConfigError: `columns` names a column that the source does not have.
    """
    if source == SYNTHETIC:
        made: dict[RowKind, Callable[[int, int], Sequence[Row]]] = {
            "sft": synthetic.make_instructions,
            "va": synthetic_preferences.make_preferences,
            "cls": sentiment.make_reviews,
        }
        return LoadedRows(tuple(made[kind](seed, count)), ())
    own = {field: column for field, column in columns.items() if field in COLUMN_NAMES[kind]}
    found = rows.load(kind, source, own, labels, on_message=on_message)
    for skipped in found.skipped[:_SHOWN]:
        on_message(f"skipped {source}:{skipped.line}: {skipped.reason}")
    return found


def class_names(found: Sequence[LabelledText], declared: Sequence[str]) -> tuple[str, ...]:
    """Return the class names of a run: the declared ones, or those in the data, numbers by value.

    Raises:
        ConfigError: A class is declared twice.
        DataError: The rows have fewer than two classes, or more than a task can name.
    """
    if twice := [name for name, count in Counter(declared).items() if count > 1]:
        raise ConfigError(f"data.labels names {twice[0]!r} twice", "name each class once")
    present = {row.label for row in found}
    chosen = tuple(declared) or tuple(sorted(present, key=_by_value))
    remedy = "check the label column (data.columns) and data.labels"
    if len(present) < 2:
        raise DataError(
            f"the rows have {len(present)} class, classification needs two or more", remedy
        )
    if len(chosen) > MAX_CLASSES or sum(len(name.encode()) for name in chosen) > _MAX_NAMES:
        raise DataError(f"{len(chosen)} classes are too many, or have too long names", remedy)
    return chosen


def _by_value(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts numbers first, 2 before 10."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name


def select_usable(
    found: LoadedRows[Row],
    source: str,
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> tuple[list[Row], SourceSummary]:
    """Return the rows that a model of this length can learn from, and what became of the others.

    Raises:
        DataError: No row is left.
    """
    encoded = objective.encode(tokenizer, found.rows, max_length)
    kept = [found.rows[place] for place in encoded.kept]
    reasons = Counter(_without_values(each.reason) for each in found.skipped) + Counter(
        encoded.skipped
    )
    summary = SourceSummary(
        source=source,
        read=len(found.rows) + len(found.skipped),
        skipped=dict(reasons.most_common()),
        truncated=encoded.truncated_count,
        used=len(kept),
    )
    if not kept:
        raise DataError(
            f"no row of {source} can be used at {max_length} tokens ({', '.join(reasons)})",
            _remedy(found.rows),
        )
    return kept, summary


def _remedy(unusable: Sequence[Row]) -> str:
    """Return what makes rows usable; for a text to classify never the length, which is cut."""
    labels = sorted({row.label for row in unusable if isinstance(row, LabelledText)})
    if labels:
        return f"set data.labels to the classes of the rows: {', '.join(labels[:_SHOWN])}"
    return "raise model.max_length, or give shorter rows"


def _without_values(reason: str) -> str:
    """Return a reason without what differs between rows; the summary is journaled and published."""
    return _VALUE.sub(r"\1 …", reason)
