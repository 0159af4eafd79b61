"""Rows of a run by kind, read or synthesised, and the selection of those that the model can use.

First step of the data path. A row that no model of this length can learn from is left out before
rows are dealt, so that no client gets rows that it cannot use; the number of such rows, by reason,
is kept for the report. Next: `learning.data.shards`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from common.errors import ConfigError, DataError
from common.protocol.fields import RowKind
from learning.data import rows
from learning.data.omissions import SHOWN, count_reasons, print_omissions
from learning.data.row_parser import COLUMN_NAMES
from learning.data.row_types import LabelledText, RatedAnswer, Row
from learning.data.rows import LoadedRows
from learning.objectives.registry import Objective
from learning.synthetic import instructions as synthetic
from learning.synthetic import preferences as synthetic_preferences
from learning.synthetic import sentiment

SYNTHETIC = "synthetic"
MAX_CLASSES = 1000
"""Most classes of a run; their names travel with every task."""
_MAX_NAMES = 32 * 1024  # bytes of all names: half of a message's longest header
_CHECK_LABELS = "check the label column (data.columns) and data.labels"
_MANY_REPEATED = 0.1  # share of repeated rows from which the summary mentions them


@dataclass(frozen=True)
class SourceSummary:
    """Counts of the rows of one source."""

    source: str  # name in the configuration
    read: int  # rows that the source has
    skipped: Mapping[str, int]  # rows left out, by reason
    truncated: int  # rows that are used without their end
    used: int  # rows that are dealt to clients or held out
    omitted: Mapping[str, int] = field(default_factory=dict)
    """Number of used rows by the part that is left out; missing in runs of earlier releases."""
    repeated: int = 0  # used rows that are equal to an earlier one
    lost_answers: int = 0  # answers beyond the end of truncated conversations
    pairs: int = 0  # records that were preference pairs, each of which became two ratings

    def fields(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        reasons = "".join(f"; {count}: {reason}" for reason, count in self.skipped.items())
        lost = f" ({self.lost_answers} whole answers are cut off)" if self.lost_answers else ""
        cut = f"; {self.truncated} used without their end{lost}" if self.truncated else ""
        part = "".join(f"; {count} used in part: {part}" for part, count in self.omitted.items())
        many = self.repeated >= _MANY_REPEATED * self.used
        pairs = f"; {self.pairs} pairs, each taken as two ratings" if self.pairs else ""
        same = f"; {self.repeated} repeat an earlier row" if self.repeated and many else ""
        used = f"{self.source}: {self.used} of {self.read} rows can be used"
        return f"{used}{pairs}{reasons}{cut}{part}{same}"


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
            kinds are ignored.
        labels: The declared classes; empty takes any.
        on_message: Called with a line for each of the first rows that are skipped or used in part.

    Raises:
        DataError: The source cannot be reached, or has no usable row.
        ConfigError: `columns` names a column that the source does not have.
    """
    if source == SYNTHETIC:
        makers: dict[RowKind, Callable[[int, int], Sequence[Row]]] = {
            "sft": synthetic.make_instructions,
            "va": synthetic_preferences.make_preferences,
            "kto": synthetic_preferences.make_ratings,
            "cls": sentiment.make_reviews,
        }
        return LoadedRows(tuple(makers[kind](seed, count)), ())
    own = {field: column for field, column in columns.items() if field in COLUMN_NAMES[kind]}
    loaded = rows.load(kind, source, own, labels, on_message=on_message)
    print_omissions(source, loaded, on_message)
    return loaded


def class_names(texts: Sequence[LabelledText], declared: Sequence[str]) -> tuple[str, ...]:
    """Return the class names of a run: the declared ones, or those in the data, numbers by value.

    Raises:
        ConfigError: A class is declared twice.
        DataError: The rows have fewer than two classes, or more than a task can name.
    """
    names = check_class_names(tuple(declared))
    present = {row.label for row in texts}
    if len(present) < 2:
        raise DataError(
            f"the rows have {len(present)} class, classification needs two or more", _CHECK_LABELS
        )
    return names or check_class_names(tuple(sorted(present, key=_by_value)))


def check_class_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names of a run unchanged.

    Raises:
        ConfigError: A class is declared twice.
        DataError: They are more than a task can name.
    """
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"data.labels names {repeated[0]!r} twice", "name each class once")
    if len(names) > MAX_CLASSES or sum(len(name.encode()) for name in names) > _MAX_NAMES:
        raise DataError(f"{len(names)} classes are too many, or have too long names", _CHECK_LABELS)
    return names


def check_ratings(rows: Sequence[Row], source: str) -> None:
    """Raise `DataError` if all rated answers of a plan have the same rating."""
    ratings = {row.good for row in rows if isinstance(row, RatedAnswer)}
    if len(ratings) == 1:
        only, other = ("good", "bad") if ratings.pop() else ("bad", "good")
        raise DataError(
            f"all {len(rows)} answers of {source} are rated {only}: kto learns from the difference"
            f" to {other} ones",
            f"add {other} answers"
            + (', or learn these with objective = "sft"' if only == "good" else ""),
        )


def _by_value(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts numbers first, 2 before 10."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name


def select_usable(
    loaded: LoadedRows[Row],
    source: str,
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> tuple[list[Row], SourceSummary]:
    """Return the rows that a model of this length can learn from, and counts of all.

    Raises:
        DataError: No row is left.
    """
    encoded = objective.encode(tokenizer, loaded.rows, max_length)
    kept = [loaded.rows[place] for place in encoded.kept]
    reasons = count_reasons(loaded.skipped) + Counter(encoded.skipped)
    summary = SourceSummary(
        source=source,
        read=len(loaded.rows) + len(loaded.skipped),
        skipped=dict(reasons.most_common()),
        truncated=encoded.truncated_count,
        lost_answers=encoded.lost_answers,
        used=len(kept),
        omitted=_count_omissions(loaded, encoded.kept),
        repeated=len(kept) - len(set(kept)),
        pairs=loaded.pairs,
    )
    if not kept:
        raise DataError(
            f"no row of {source} can be used at {max_length} tokens ({', '.join(reasons)})",
            _remedy(loaded.rows),
        )
    return kept, summary


def _count_omissions(loaded: LoadedRows[Row], kept: Collection[int]) -> dict[str, int]:
    places = set(kept)
    found = Counter(part.reason for part in loaded.omissions if part.place in places)
    return dict(found.most_common())


def _remedy(unusable: Sequence[Row]) -> str:
    """Return how rows become usable; a text to classify is cut, so never too long."""
    labels = sorted({row.label for row in unusable if isinstance(row, LabelledText)})
    if labels:
        return f"set data.labels to the classes of the rows: {', '.join(labels[:SHOWN])}"
    return "raise model.max_length, or give shorter rows"
