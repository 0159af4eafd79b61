"""Other organisations' machines: each with its own directory, state, cache and file of rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.processes import Command, Commands, commands

Rows = Sequence[Mapping[str, str]]


class Site:
    """Machine of an invited site. Its commands know nothing of the coordinator's directory."""

    def __init__(self, directory: Path, place: Commands) -> None:
        self.directory = directory
        self._place = place

    def join(self, token: str, data: Path, *flags: str, **variables: str) -> Command:
        return self.command("worker", "--join", token, "--data", str(data), *flags, **variables)

    def back(self, site: str) -> Command:
        """Start the worker of a site that has joined."""
        return self.command("worker", "--site", site)

    def command(self, *words: str, **variables: str) -> Command:
        return self._place.fork(*words, **variables)

    @property
    def state(self) -> Path:
        return self.directory / "state"


@contextmanager
def site_machine(directory: Path, cache: Path | None = None) -> Iterator[Site]:
    """Yield a machine; its commands are killed at the end.

    Args:
        cache: Folder of base models; None for an empty one, which is filled by the coordinator.
    """
    directory.mkdir()
    environment = {
        "FCCL_STATE": str(directory / "state"),
        "FCCL_CACHE": str(cache or directory / "cache"),
    }
    with commands(directory, environment) as place:
        yield Site(directory, place)


def instructions(mark: str, count: int = 40) -> Rows:
    """Return rows that each hold a mark, by which the rows of a site are found elsewhere."""
    return [
        {"instruction": f"Name ward {mark}{i}.", "output": f"{mark}{i} is on floor {i % 7}."}
        for i in range(count)
    ]


def write_conversations(path: Path, rows: Rows) -> Path:
    """Write rows as JSONL of conversations."""
    lines = []
    for row in rows:
        turns = [
            {"role": "user", "content": row["instruction"]},
            {"role": "assistant", "content": row["output"]},
        ]
        lines.append(json.dumps({"messages": turns}) + "\n")
    path.write_text("".join(lines))
    return path


def write_csv(path: Path, rows: Rows, columns: Mapping[str, str]) -> Path:
    """Write rows as CSV with other names of columns."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([columns[name] for name in rows[0]])
        writer.writerows(row.values() for row in rows)
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path
