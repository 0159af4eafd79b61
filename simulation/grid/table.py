"""Table of a grid's cells, as CSV with all figures and as Markdown with those for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import write_durable
from simulation.grid.runner import CellResult

CSV, MARKDOWN = "grid.csv", "grid.md"
_SHOWN = (
    "seconds",
    "versions",
    "updates",
    "rejected",
    "lost",
    "MB up",
    "MB down",
    "final_loss",
    "best_loss",
    "target_s",
)
Row = dict[str, Any]


def table_rows(results: Sequence[CellResult]) -> list[Row]:
    """Return a row for each cell: its settings, then its figures."""
    return [_row(result) for result in results]


def _row(result: CellResult) -> Row:
    cell, summary = result.cell, result.summary
    case = {"case": cell.case} if cell.case else {}
    row: Row = {**case, **{key: _text(value) for key, value in cell.settings.items()}}
    if summary is not None:
        row |= {
            "seconds": round(summary.seconds, 3),
            "versions": summary.versions,
            "tasks": summary.tasks,
            "updates": summary.updates,
            "rejected": summary.rejected,
            "lost": summary.lost,
            "MB up": round(summary.bytes_up / 1e6, 3),
            "MB down": round(summary.bytes_down / 1e6, 3),
            "final_loss": summary.final_loss,
            "best_loss": summary.best_loss,
            "target_s": summary.target_s,
            **{f"final_{key}": value for key, value in summary.final_metrics.items()},
            "complete": summary.complete,
            "reason": summary.reason,
            "wall_s": summary.wall_s,
        }
    return row | {"error": result.error, "run": cell.config.run.name}


def _text(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write both tables into a folder; raise `DiskError` if the disk refuses."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_durable(folder / CSV, text.getvalue().encode())
    write_durable(folder / MARKDOWN, markdown(rows).encode())


def markdown(rows: Sequence[Row]) -> str:
    """Return the table for people, without columns that are empty everywhere."""
    settings = list(dict.fromkeys(key for row in rows for key in _settings(row)))
    metrics = [key for key in dict.fromkeys(k for r in rows for k in r) if _is_metric(key)]
    columns = [*settings, *_SHOWN, *metrics, "error"]
    used = [key for key in columns if any(row.get(key) not in (None, "") for row in rows)]
    lines = [used, ["---" if key in settings else "---:" for key in used]]
    lines += [[_cell(row.get(key)) for key in used] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _settings(row: Row) -> list[str]:
    keys = list(row)
    first = next((i for i, key in enumerate(keys) if key in ("seconds", "error")), len(keys))
    return keys[:first]


def _is_metric(key: str) -> bool:
    return key.startswith("final_") and key != "final_loss"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|")
