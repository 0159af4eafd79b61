"""Run directories are created complete or not at all, and never resumed or replaced by accident."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.config import FederationConfig, PhaseConfig
from common.config.loader import apply_offline, parse
from common.errors import ConfigError, FcclError, RunError
from common.protocol import codec
from common.run_directory.recorded_run import read_config
from coordinator.storage import run
from tests.support.coordinator_records import prepared_run


def config(directory: Path, **changed: Any) -> FederationConfig:
    table = {
        "run": {"name": "r", "dir": str(directory)},
        "broker": {"url": "amqp://user:hunter2@broker:5672/"},
        "store": {"url": "redis://:hunter2@store:6379/0"},
        "phase": [{"versions": 2}, {"versions": 3}],
    }
    return parse(table | changed, "test")


def opened(of: FederationConfig) -> run.Run:
    return run.open_run(of, lambda base: Path("base") / base.name)


def one_line(error: FcclError) -> str:
    assert "\n" not in str(error) and error.remedy
    return str(error)


def test_an_opened_run_is_what_was_created(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 5.0)
    found = opened(config(tmp_path))
    assert found.directory == tmp_path / "r"
    assert found.run_id.startswith("r-") and found.template.run == found.run_id
    assert found.plan.total_versions == 5
    assert {c.client_id: c.rows for c in found.plan.clients.values()} == {
        f"client_{i}": {"sft": 100} for i in range(3)
    }
    assert found.base_path == Path("base/tiny")
    assert np.array_equal(found.versions.read(0)["b"], np.ones((10, 10)))
    assert [path.name for path in (tmp_path / "r" / "versions").iterdir()] == ["000000"]
    (version,) = found.journal.versions()
    assert (version.version, version.at) == (0, 5.0)
    assert codec.digest(found.versions.frame(0)) == version.sha256
    found.journal.close()


def test_two_runs_of_one_name_have_different_ids(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    first = run.set_aside(config(tmp_path))
    run.create_run(config(tmp_path), prepared_run, 0.0)
    assert run.set_aside(config(tmp_path)) != first


def test_no_credential_is_written_into_the_run_directory(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    opened(config(tmp_path)).journal.close()
    for path in (tmp_path / "r").rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def test_a_preparation_that_fails_leaves_no_run(tmp_path: Path) -> None:
    def failing(directory: Path) -> run.PreparedRun:
        (directory / "clients").mkdir()
        raise RunError("no rows", "add some")

    with pytest.raises(RunError, match="no rows"):
        run.create_run(config(tmp_path), failing, 0.0)
    assert list(tmp_path.iterdir()) == []
    run.check_mode(config(tmp_path), "start")
    run.create_run(config(tmp_path), prepared_run, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_place_that_cannot_be_written_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"run\.dir") as caught:
        run.create_run(config(tmp_path / "file"), prepared_run, 0.0)
    one_line(caught.value)


# start, resume, new


def test_an_existing_run_is_not_started_over_silently(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    with pytest.raises(RunError, match="exists; --resume continues") as caught:
        run.check_mode(config(tmp_path), "start")
    one_line(caught.value)
    run.check_mode(config(tmp_path), "resume")
    run.check_mode(config(tmp_path), "new")


def test_a_directory_that_holds_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    run.check_mode(config(tmp_path), "start")
    (tmp_path / "r").mkdir()
    with pytest.raises(RunError, match="holds no run to resume") as caught:
        run.check_mode(config(tmp_path), "resume")
    one_line(caught.value)


def test_setting_a_run_aside_keeps_its_files_and_returns_its_id(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    found = opened(config(tmp_path))
    found.journal.close()
    assert run.set_aside(config(tmp_path)) == found.run_id
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("r.old-") and (aside / "run.db").exists()
    assert run.set_aside(config(tmp_path)) is None


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"model": {"name": "gpt2"}}, "model.name"),
        ({"model": {"lora": {"r": 4}}}, "model.lora.r"),
        ({"schedule": {"max_staleness": 3}}, "schedule.max_staleness"),
        ({"phase": [{"versions": 2}, {"versions": 4}]}, "phase.1.versions"),
        ({"phase": [{"versions": 2}]}, "phase.1.objective"),
        ({"phase": [{"versions": 2}, {"versions": 3}, {}]}, "phase.2.objective"),
    ],
)
def test_a_key_that_changed_since_the_start_is_named(
    tmp_path: Path, changed: dict[str, Any], key: str
) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    with pytest.raises(ConfigError, match=f"^{key} is ") as caught:
        opened(config(tmp_path, **changed))
    one_line(caught.value)


def test_addresses_and_retention_may_change(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    changed = config(
        tmp_path,
        broker={"url": "amqp://elsewhere/"},
        store={"url": "redis://elsewhere/"},
        run={
            "name": "r",
            "dir": str(tmp_path / ".." / tmp_path.name),
            "keep_versions": 3,
            "keep_updates": True,
        },
    )
    found = opened(changed)
    assert (found.keep_versions, found.keep_updates) == (3, True)
    found.journal.close()


# continue


def test_continue_starts_a_run_or_resumes_it(tmp_path: Path) -> None:
    run.check_mode(config(tmp_path), "continue")
    assert not run.run_exists(config(tmp_path))
    run.create_run(config(tmp_path), prepared_run, 0.0)
    assert run.run_exists(config(tmp_path))
    run.check_mode(config(tmp_path), "continue")


def test_continue_refuses_a_directory_that_holds_no_run(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(RunError, match="holds no run to resume") as caught:
        run.check_mode(config(tmp_path), "continue")
    one_line(caught.value)


# without the hub

OFFLINE = {"model": {"name": "gpt2"}, "offline": {"model.name": "tiny", "phase.0.lr": 0.5}}


def test_a_run_that_began_without_the_hub_stays_so(tmp_path: Path) -> None:
    given = config(tmp_path, **OFFLINE)
    run.create_run(apply_offline(given), prepared_run, 0.0)
    assert read_config(tmp_path / "r").model.name == "tiny"
    found = opened(given)
    assert [phase.lr for phase in found.plan.phases] == [0.5, PhaseConfig().lr]
    found.journal.close()


def test_a_run_that_began_with_the_hub_stays_so(tmp_path: Path) -> None:
    given = config(tmp_path, **OFFLINE)
    run.create_run(given, prepared_run, 0.0)
    saved = read_config(tmp_path / "r")
    assert (saved.model.name, saved.offline) == ("gpt2", {})
    found = opened(given)
    assert {phase.lr for phase in found.plan.phases} == {PhaseConfig().lr}
    found.journal.close()


@pytest.mark.parametrize("began", ["with", "without"])
def test_another_key_that_changed_is_named_with_or_without_the_hub(
    tmp_path: Path, began: str
) -> None:
    given = config(tmp_path, **OFFLINE)
    run.create_run(given if began == "with" else apply_offline(given), prepared_run, 0.0)
    changed = config(tmp_path, **OFFLINE, schedule={"max_staleness": 3})
    with pytest.raises(ConfigError, match=r"^schedule\.max_staleness is 3"):
        opened(changed)


def test_a_directory_without_a_run_has_no_saved_configuration(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        read_config(tmp_path)


def test_a_run_of_a_release_with_other_metadata_is_refused_with_the_remedy(tmp_path: Path) -> None:
    run.create_run(config(tmp_path), prepared_run, 0.0)
    with closing(sqlite3.connect(tmp_path / "r" / "run.db")) as db, db:
        db.execute("DELETE FROM meta WHERE key = 'labels'")
    with pytest.raises(RunError, match="another release") as caught:
        opened(config(tmp_path))
    assert str(tmp_path / "r") in one_line(caught.value)
