"""`fccl evaluate` on whole runs: finished, running, and side by side."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Command, Commands, commands

CONFIG = """\
[run]
name = "x"
keep_versions = 1
[model]
name = "offline:gpt2-micro"
max_length = 160
[model.lora]
r = 4
[data]
rows = 90
clients = 2
[[phase]]
versions = 2
local_steps = 2
batch_size = 4
[[phase]]
objective = "dpo"
versions = 3
local_steps = 2
batch_size = 2
[schedule]
concurrency = 2
buffer_size = 1
"""
QUICK = ("--sft", "4", "--va", "4", "--gen-samples", "1", "--gen-tokens", "3")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def place(directory: Path, model_cache: Path) -> Iterator[Commands]:
    """Commands in a directory with one finished run, `runs/x`."""
    environment = {"FCCL_CACHE": str(model_cache), "HF_HUB_OFFLINE": "1"}
    with commands(directory, environment) as place:
        (directory / "f.toml").write_text(CONFIG)
        command = place.fork("demo", "--plain", "--config", "f.toml", "--out", "runs/x")
        assert command.end() == 0, command.err
        yield place


@pytest.fixture
def run(place: Commands, directory: Path) -> Path:
    return directory / "runs" / "x"


def state(run: Path) -> dict[str, bytes]:
    """All files of a run but its reports, and SQLite's list of who reads the journal right now."""
    files = (path for path in run.rglob("*") if path.is_file() and path.parent.name != "report")
    return {str(path): path.read_bytes() for path in files if path.name != "run.db-shm"}


def values(command: Command) -> dict[str, Any]:
    """What a command with --json has printed, which must be all that it printed."""
    assert command.end() == 0, command.err
    found: dict[str, Any] = json.loads(command.out)
    return found


def one_line(command: Command, code: int, *words: str) -> None:
    assert command.end() == code, command.err
    assert len(command.err.strip().splitlines()) == 1
    assert all(word in command.err for word in words), command.err


def test_the_report_at_the_end_of_a_run_has_figures_of_each_kind(run: Path) -> None:
    found = json.loads((run / "report" / "report.json").read_text())
    assert [subject["version"] for subject in found["subjects"]] == [0, 2, 5]
    assert found["kinds"]["sft"]["heldout"][-1]["nats_per_token"] > 0
    assert found["kinds"]["va"]["reference"] == 2
    assert found["federated"] == found["kinds"]["sft"]["heldout"][-1]
    assert [version["version"] for version in found["versions"]] == [0, 1, 2, 3, 4, 5]
    text = (run / "report" / "report.md").read_text()
    assert all(f"## {title}" in text for title in ("Preferences", "Versions", "Updates", "Data"))


def test_an_evaluation_is_shown_and_written_and_changes_nothing_else(
    place: Commands, run: Path
) -> None:
    before = state(run)
    command = place.fork("evaluate", "runs/x", *QUICK)
    assert command.end() == 0, command.err
    assert "bits per byte" in command.out and "reward margin" in command.out
    assert "written: runs/x/report/evaluation.md" in command.out
    assert "data:image/png" in (run / "report" / "evaluation.html").read_text()
    assert state(run) == before


@pytest.mark.slow
def test_an_older_version_is_evaluated_and_json_is_all_that_is_printed(
    place: Commands, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    command = place.fork("evaluate", "runs/x", "--version", "2", "--json", "--out", out, *QUICK)
    found = values(command)
    assert [subject["version"] for subject in found["subjects"]] == [0, 2]
    assert found["heldout_rows"] == 4
    assert found == json.loads((tmp_path / "out" / "evaluation.json").read_text())
    last = found["kinds"]["va"]["heldout"][-1]
    assert (last["reward_accuracy"], last["reward_margin"]) == (0.5, 0.0)


@pytest.mark.slow
def test_what_was_measured_is_shown_even_where_it_cannot_be_written(place: Commands) -> None:
    command = place.fork("evaluate", "runs/x", "--out", "f.toml/report", *QUICK)
    one_line(command, 7, "f.toml/report cannot be written")
    assert "reward margin" in command.out


def test_a_run_beside_itself_differs_in_nothing(place: Commands, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    found = values(
        place.fork("evaluate", "runs/x", "--compare", "runs/x", "--json", "--out", out, *QUICK)
    )
    for each in found["comparison"]["kinds"].values():
        one, two = each["figures"]
        assert one == two
        assert one["rows"] == 4


def test_a_version_that_retention_removed_is_refused_with_those_that_are_there(
    place: Commands,
) -> None:
    one_line(place.fork("evaluate", "runs/x", "--version", "1"), 7, "version 1", "0, 2", "5")


def test_what_is_no_run_is_refused_before_anything_is_loaded(place: Commands) -> None:
    one_line(place.fork("evaluate", "runs/nowhere"), 7, "runs/nowhere", "holds no run")
    one_line(place.fork("evaluate", "runs/x", "--compare", "runs/y"), 7, "runs/y", "holds no run")


def test_a_run_is_evaluated_while_it_is_running(place: Commands, directory: Path) -> None:
    endless = CONFIG.replace("local_steps = 2", "local_steps = 100000")
    (directory / "endless.toml").write_text(endless)
    running = place.fork("demo", "--plain", "--config", "endless.toml", "--out", "runs/endless")
    running.says("issued")
    found = values(place.fork("evaluate", "runs/endless", "--json", *QUICK))
    assert [subject["version"] for subject in found["subjects"]] == [0]
    with closing(sqlite3.connect(directory / "runs" / "endless" / "run.db")) as db:
        assert db.execute("SELECT value FROM epoch").fetchone() == (1,)
    running.signal(signal.SIGTERM)
    assert running.end() == 10
