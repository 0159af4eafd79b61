"""Run directories that somebody else made: `status`, `tui`, `verify` and `audit` open them."""

from __future__ import annotations

import functools
import io
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from rich.console import Console

from broker.chunks import CHUNK_BYTES
from common.run_directory.evaluator_figures import read_evaluator_figures
from common.run_directory.recorded_run import read_run
from common.run_directory.samples import read_samples
from common.run_directory.site_journal import read_site_journal
from common.store.embedded import read_address
from evaluation.verification.verify import verify
from tests.fuzz import mutate
from tests.fuzz.target import Reader, Target
from tests.support import polled_federation
from tests.support.polled_federation import PolledFederation
from tui.data.recorded_views import view_at
from tui.status_panel import status_panel


@functools.cache
def _finished_run() -> Path:
    """Return the directory of a small finished run, made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="fccl-fuzz-"))
    federation = PolledFederation(folder)
    with mock.patch.object(polled_federation, "CHUNK", CHUNK_BYTES):
        federation.serve()
    directory = folder / "copy"
    shutil.copytree(federation.directory, directory, ignore=shutil.ignore_patterns("run.db*"))
    with sqlite3.connect(federation.directory / "run.db") as db:
        db.execute("VACUUM INTO ?", (str(directory / "run.db"),))
    return directory


def _read(directory: Path) -> None:
    """Read a run as the commands do."""
    run = read_run(directory)
    for at in (run.started_at, run.ended_at):
        view = view_at(run, at)
        Console(file=io.StringIO(), width=100).print(status_panel(view, at))
    read_samples(directory)
    read_evaluator_figures(directory)
    verify(directory)
    read_site_journal(directory, "local")


def _damaged(folder: Path) -> Reader:
    """Return the reader of a run whose files are replaced: a name, a line break, the content."""
    directory = folder / "run"

    def read_damaged(data: bytes) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(_finished_run(), directory)
        name, _, content = data.partition(b"\n")
        known = {file.encode() for file in FILES}
        (directory / (name if name in known else b"run.db").decode()).write_bytes(content)
        _read(directory)

    return read_damaged


FILES = ("run.db", "federation.toml", "samples.jsonl", "evaluators.jsonl", "progress.jsonl")


def _files() -> list[bytes]:
    directory = _finished_run()
    present = [name for name in FILES if (directory / name).exists()]
    seeds = [name.encode() + b"\n" + (directory / name).read_bytes() for name in present]
    sample = {"version": 0, "at": 1.0, "kind": "sft", "asked": "a", "expected": "b", "answer": "c"}
    return [*seeds, b"samples.jsonl\n" + json.dumps(sample).encode() + b"\n"]


def _edited(folder: Path) -> Reader:
    """Return the reader of a run with other values in its journal."""
    path = folder / "run"
    shutil.copytree(_finished_run(), path)
    original = (path / "run.db").read_bytes()

    def read_edited(data: bytes) -> None:
        try:
            edits = json.loads(data)
        except (ValueError, RecursionError):
            return
        (path / "run.db").write_bytes(original)
        with sqlite3.connect(path / "run.db") as db:
            for edit in edits if isinstance(edits, list) else ():
                _edit(db, edit)
        db.close()
        _read(path)

    return read_edited


def _edit(db: sqlite3.Connection, edit: Any) -> None:
    """Write a cell: [table, column, row, value]; JSON values are written as text."""
    try:
        table, column, row, value = edit
        text = json.dumps(value) if isinstance(value, dict | list) else value
        db.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (text, row))
    except (sqlite3.Error, ValueError, TypeError, OverflowError, UnicodeError, RecursionError):
        return


def _cells() -> list[bytes]:
    seeds = []
    with sqlite3.connect(_finished_run() / "run.db") as db:
        for (table,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall():
            rows = db.execute(f'SELECT rowid, * FROM "{table}" LIMIT 2')
            columns = [each[0] for each in rows.description][1:]
            for number, *values in rows.fetchall():
                for column, value in zip(columns, values, strict=True):
                    if not isinstance(value, bytes):
                        seeds.append(json.dumps([[table, column, number, _parsed(value)]]).encode())
    return seeds


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError):
        return value


def _mutate_value(random: Random, data: bytes) -> bytes:
    """Return edits with another value."""
    try:
        ((table, column, row, value),) = json.loads(data)
        changed = [[table, column, row, mutate.mutate_tree(random, value)]]
        return json.dumps(changed, default=str).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError, TypeError):
        return data


def _address(folder: Path) -> Reader:
    def read_url(data: bytes) -> None:
        (folder / "store.url").write_bytes(data)
        read_address(folder)

    return read_url


RUNS = (
    Target("run-directory", _damaged, _files, (mutate.mutate_bytes, mutate.mutate_lines), 2),
    Target("journal", _edited, _cells, (_mutate_value,), 3),
)
