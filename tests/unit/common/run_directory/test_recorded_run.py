"""A run directory is read without changing it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from common.errors import RunError
from common.run_directory import recorded_run
from tests.support.tui.recordings import record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return record(tmp_path / "r")


def change(run: Path, *statements: str) -> None:
    db = sqlite3.connect(run / "run.db")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def test_records_have_their_times_and_no_file_is_touched(run: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    found = recorded_run.read_run(run)
    assert (found.run_id, found.started_at, found.ended_at) == ("mine-1", 100.0, 140.0)
    assert [(m.client_id, m.site) for m in found.clients.values()] == [("a", "local"), ("b", "far")]
    assert [(i.task_id, i.attempt, i.at) for i in found.attempts] == [
        ("t1", 1, 100.0),
        ("t2", 1, 100.0),
        ("t3", 1, 110.0),
        ("t2", 2, 115.0),
    ]
    assert [(s.task_id, s.accepted) for s in found.receipts] == [
        ("t1", True),
        ("t2", False),
        ("t3", True),
    ]
    assert [each.stats.avg_loss for each in found.updates] == [2.0, 1.5]
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_run_from_before_invitations_is_read(run: Path) -> None:
    change(run, "DROP TABLE member", "DELETE FROM receipt WHERE task_id = 't2'")
    assert list(recorded_run.read_run(run).clients) == ["a"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "federation.toml").unlink(), "holds no run: it has no federation.toml"),
        (lambda run: (run / "run.db").unlink(), "holds no run: it has no run.db"),
        (lambda run: (run / "run.db").write_bytes(b"x" * 5000), "not a database"),
        (lambda run: (run / "run.db").write_bytes(b""), "no such table"),
        (lambda run: change(run, "DELETE FROM meta"), "its journal lacks run_id"),
        (lambda run: change(run, "UPDATE version SET summary = '{}'"), "lacks or misstates"),
        (lambda run: change(run, "UPDATE event SET refs = '{'"), "lacks or misstates"),
        (lambda run: change(run, "UPDATE accepted SET stats = '1'"), "lacks or misstates"),
        (lambda run: change(run, "UPDATE attempt SET issued_at = 'x'"), "lacks or misstates"),
        (lambda run: change(run, "DELETE FROM version"), "no version yet"),
        (lambda run: (run / "samples.jsonl").write_text("{}\n"), "samples.jsonl is damaged"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line(run: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(run)
    with pytest.raises(RunError, match=message) as caught:
        recorded_run.read_run(run)
    assert "\n" not in str(caught.value)
