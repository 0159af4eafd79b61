"""Messages on rows that are left out, or used in part: the first by line, all by reason.

They are for the people who own the rows. Counts by reason contain no value of a row, and may travel
with a run's report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

from learning.data.row_types import Row
from learning.data.rows import LoadedRows, SkippedRow

SHOWN = 5
"""Skipped rows that get a line each, and as many that are used in part."""
_VALUE = re.compile(r"""\b(is|has) ('.*'|".*"|\d+)(?=[ ,])""")


def print_omissions(
    source: str, loaded: LoadedRows[Row], print_line: Callable[[str], None]
) -> None:
    """Print a line for each of the first rows that are skipped, or used in part."""
    for skipped in loaded.skipped[:SHOWN]:
        print_line(f"skipped {source}:{skipped.line}: {skipped.reason}")
    for part in loaded.omissions[:SHOWN]:
        print_line(f"used in part {source}:{part.line}: {part.reason}")


def count_reasons(skipped: Iterable[SkippedRow]) -> Counter[str]:
    """Count skipped rows by reason, without values of the rows."""
    return Counter(_VALUE.sub(r"\1 …", each.reason) for each in skipped)
