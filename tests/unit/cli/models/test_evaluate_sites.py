"""`fccl evaluate` and `fccl export --best` on runs whose rows all stay at the sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.models import evaluate, export
from common.errors import ConfigError, RunError
from common.run_directory.recorded_run import read_run
from tests.support.evaluated_sites import add_round, text_sums
from tests.support.site_runs import site_run

NOWHERE = '[store]\nurl = "redis://127.0.0.1:1/0"\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run of which version 1 is the best; no store is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "federation.toml").write_text(NOWHERE)
    directory = site_run(tmp_path, ("alpha",))
    for version, nats in ((0, 4.0), (1, 2.0), (2, 3.0)):
        add_round(directory, version, {"alpha": text_sums(10, nats)}, at=10.0 + version)
    return directory


def test_without_a_coordinator_it_says_so_and_shows_what_is_recorded(run: Path) -> None:
    done = CliRunner().invoke(evaluate.command, [str(run)])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("the sites were not asked: ")
    assert "| 1 (best) | 2.000 |" in done.output
    done = CliRunner().invoke(evaluate.command, [str(run), "--json"])
    found = json.loads(done.stdout)
    assert not found["sites"]["asked"] and found["sites"]["reason"]
    assert found["best_version"] == 1


def test_recorded_asks_no_site(run: Path) -> None:
    done = CliRunner().invoke(evaluate.command, [str(run), "--recorded", "--json"])
    assert done.exit_code == 0, done.output
    assert "sites" not in json.loads(done.stdout)


def test_options_about_rows_that_the_coordinator_does_not_have_are_refused(run: Path) -> None:
    done = CliRunner().invoke(evaluate.command, [str(run), "--sft", "3"])
    assert done.exit_code == 2 and "requires rows of the coordinator" in done.output
    dealt = site_run(run.parent / "dealt", ("client_0",), dealt=True)
    done = CliRunner().invoke(evaluate.command, [str(dealt), "--recorded"])
    assert done.exit_code == 2 and "rows all stay at the sites" in done.output


def test_the_best_version_is_exported_by_its_number(run: Path, tmp_path: Path) -> None:
    assert export.find_best(read_run(run), None) == 1
    with pytest.raises(ConfigError, match="exclude each other"):
        export.find_best(read_run(run), 2)
    with pytest.raises(RunError, match="no client has evaluated one"):
        export.find_best(read_run(site_run(tmp_path / "other", ("alpha",))), None)
