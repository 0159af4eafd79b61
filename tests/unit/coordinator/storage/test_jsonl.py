"""The JSON lines files follow the journal, also after a crash while they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config.config import PhaseConfig
from common.errors import FencedError
from coordinator.storage.journal import Journal
from coordinator.storage.jsonl import CLIENT_METRICS, EVALUATIONS, PROGRESS, JsonlFiles
from tests.support.coordinator_records import update_summary, version_summary
from tests.support.evaluation_records import evaluation, put_evaluations, put_rounds, round_of


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.create(tmp_path / "run.db", {})
    journal.take_over()
    journal.put_version(version_summary(0))
    for version in (1, 2):
        updates = tuple(
            update_summary(0, 1.0).model_copy(update={"task_id": f"t{version}{i}"})
            for i in range(3)
        )
        journal.put_version(version_summary(version).model_copy(update={"updates": updates}))
    yield journal
    journal.close()


def read(path: Path, key: str) -> list[object]:
    return [json.loads(line)[key] for line in path.read_text(encoding="utf-8").splitlines()]


def check(directory: Path) -> None:
    assert read(directory / PROGRESS, "version") == [0, 1, 2]
    expected = [f"t{version}{i}" for version in (1, 2) for i in range(3)]
    assert read(directory / CLIENT_METRICS, "task_id") == expected


def test_every_version_and_update_has_one_line(journal: Journal, tmp_path: Path) -> None:
    files = JsonlFiles(tmp_path)
    for _ in range(3):
        files.repair(journal)
    check(tmp_path)
    lines = (tmp_path / PROGRESS).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1])["updates"] == ["t10", "t11", "t12"]


def test_lines_torn_off_anywhere_by_a_crash_are_appended(journal: Journal, tmp_path: Path) -> None:
    JsonlFiles(tmp_path).repair(journal)
    whole = {name: (tmp_path / name).read_bytes() for name in (PROGRESS, CLIENT_METRICS)}
    for name, content in whole.items():
        for length in range(0, len(content), 37):
            (tmp_path / name).write_bytes(content[:length])
            JsonlFiles(tmp_path).repair(journal)
            assert (tmp_path / name).read_bytes() == content


def test_a_missing_file_is_written_anew(journal: Journal, tmp_path: Path) -> None:
    JsonlFiles(tmp_path).repair(journal)
    (tmp_path / PROGRESS).unlink()
    JsonlFiles(tmp_path).repair(journal)
    check(tmp_path)


def test_a_replaced_coordinator_appends_nothing(journal: Journal, tmp_path: Path) -> None:
    successor = Journal.open(tmp_path / "run.db")
    successor.take_over()
    with pytest.raises(FencedError):
        JsonlFiles(tmp_path).repair(journal)
    assert not (tmp_path / PROGRESS).exists()
    successor.close()


def test_an_evaluation_that_has_ended_has_a_line_for_each_client_and_a_pooled_one(
    journal: Journal, tmp_path: Path
) -> None:
    records = [evaluation("a", 0, 2.0), evaluation("b", 0, 4.0), evaluation("a", 1, 1.0)]
    put_evaluations(journal._db, records)
    put_rounds(journal._db, [round_of(0), round_of(1, closed_at=None)])
    for _ in range(2):
        JsonlFiles(tmp_path, [PhaseConfig(versions=2)]).repair(journal)
    lines = [json.loads(line) for line in (tmp_path / EVALUATIONS).read_text().splitlines()]
    assert [(line["version"], line["client_id"]) for line in lines] == [
        (0, "a"),
        (0, "b"),
        (0, None),
    ]
    assert [line["nats_per_token"] for line in lines] == pytest.approx([2.0, 4.0, 3.0])
    assert lines[-1]["missing"] == [] and lines[-1]["rows"] == 20
