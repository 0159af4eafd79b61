"""Plug-ins of other packages are found, checked and called; fccl's own trackers write files."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.child_messages import MessageKind
from cli.run.child_plugins import ChildPlugin
from cli.run.child_process import ChildProcess
from cli.run.plugin_tasks import check_plugins, evaluate, track
from common.errors import ConfigError
from common.plugins.secrets import without_secrets
from common.protocol.evaluations import EvaluatorFigures
from common.protocol.kinds import EventKind
from common.text import one_line
from coordinator.storage.evaluator_figures import append_figures
from coordinator.storage.journal import Journal
from tests.support.evaluated_runs import make_run, write_sources
from tests.support.paths import ROOT
from tests.support.plugins import install_documented_plugins


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    write_sources(place)
    table = {
        "model": {"name": str(place / "causal"), "max_length": 64, "lora": {"r": 2, "alpha": 4}},
        "data": {"rows": 60, "clients": 2},
        "phase": [{"versions": 3}],
    }
    return make_run(place, table)


@pytest.fixture
def run(made: Path) -> Iterator[Path]:
    """Return a run with versions and figures of an evaluator, and nothing tracked yet."""
    journal = Journal.open(made / "run.db")
    journal.take_over()
    for version in (0, 3):
        figures = {"quality": 0.25 * version}
        line = EvaluatorFigures(
            version=version, at=5.0, evaluator="test", figures=figures, seconds=1.0
        )
        append_figures(made, journal, [line])
    journal.close()
    yield made
    (made / "evaluator_figures.jsonl").unlink()
    for path in (made / "trackers").glob("*.json"):
        path.unlink()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site-packages"
    place.mkdir()
    install_documented_plugins(place)
    monkeypatch.syspath_prepend(place)
    return tmp_path


def finish(outcome: str = "finished") -> Callable[[], dict[str, Any] | None]:
    return lambda: {"finish": outcome}


def test_the_documented_tracker_gets_every_figure_once_and_continues_a_stopped_run(
    run: Path, installed: Path
) -> None:
    path = installed / "figures.txt"
    track(run, "lines", {"path": str(path)}, finish("stopped"))
    first = path.read_text().splitlines()
    assert "3 evaluator/test/quality 0.75" in first
    track(run, "lines", {"path": str(path)}, finish())
    assert path.read_text().splitlines()[len(first) :] == ["continued", "finished"]


def test_the_documented_evaluator_measures_the_versions_that_are_due(
    made: Path, installed: Path
) -> None:
    found: list[EvaluatorFigures] = []
    tables = {"norm": {"every": 1, "order": 1}}
    evaluate(made, made, tables, finish(), found.append, pytest.fail)
    assert [each.version for each in found] == [0, 1, 3]  # 2 is gone
    assert set(found[0].figures) == {"largest", "mean"}


def test_an_evaluation_past_its_deadline_is_given_up_and_named(made: Path, installed: Path) -> None:
    failures: list[str] = []
    tables = {"norm": {"deadline_s": 1e-6}}
    evaluate(made, made, tables, finish(), pytest.fail, failures.append)
    expected = "evaluator norm: version 0: it took longer than deadline_s = 1e-06"
    assert failures[0] == expected


@pytest.mark.parametrize(
    ("trackers", "text"),
    [
        ({"nothing": {}}, "installed: lines, mlflow"),
        ({"lines": {}}, "trackers.lines.path is missing; options: path, digits"),
        ({"lines": {"path": "x", "colour": 1}}, "unknown key trackers.lines.colour"),
        ({"lines": {"path": "x", "digits": "many"}}, "trackers.lines.digits"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(
    installed: Path, trackers: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_plugins(trackers, {})
    assert text in str(caught.value)
    assert one_line(str(caught.value)) == str(caught.value)


def test_a_plugin_whose_package_is_missing_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "evaluation.trackers.tensorboard", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'fccl\[tensorboard\]'"):
        check_plugins({"tensorboard": {}}, {})


def test_logins_and_keys_are_removed_from_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abcdef123")
    text = without_secrets("key abcdef123 refused by https://me:word@host/")
    assert text == "key *** refused by https://***@host/"


def test_tensorboard_reads_what_its_tracker_wrote(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(run, "tensorboard", {}, finish("stopped"))
    track(run, "tensorboard", {}, finish())
    (folder,) = (run / "tensorboard").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(s.step, s.value) for s in events.Scalars("evaluator/test/quality")] == [
        (0, 0),
        (3, 0.75),
    ]


@pytest.mark.slow
def test_mlflow_reads_what_its_tracker_wrote(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track(run, "mlflow", {}, finish("stopped"))
    track(run, "mlflow", {}, finish())
    client = MlflowClient((run / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("fccl")
    assert experiment is not None
    (tracked,) = client.search_runs([experiment.experiment_id])
    metrics = client.get_metric_history(tracked.info.run_id, "evaluator/test/quality")
    assert [(m.step, m.value) for m in metrics] == [(0, 0), (3, 0.75)]
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["model.lora.r"] == "2"


@pytest.mark.slow
def test_wandb_writes_an_offline_run(run: Path) -> None:
    # In a process of its own, as in a run, which ends without exit handlers.
    request = {"directory": str(run), "name": "wandb", "options": {"mode": "offline"}}
    child = ChildProcess("tracker", request)
    child.start()
    child.send({"finish": "finished"})
    assert [message.kind for message in child.messages()] == [MessageKind.RESULT]
    child.close()
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    assert b"evaluator/test/quality" in file.read_bytes()


@pytest.mark.slow
def test_trackio_keeps_a_local_database(run: Path, tmp_path: Path) -> None:
    from trackio.utils import TRACKIO_DIR

    track(run, "trackio", {"project": f"test-{tmp_path.name}"}, finish("stopped"))
    track(run, "trackio", {"project": f"test-{tmp_path.name}"}, finish())
    path = Path(TRACKIO_DIR) / f"test-{tmp_path.name}.db"
    rows = sqlite3.connect(path).execute("SELECT step FROM metrics ORDER BY step").fetchall()
    path.unlink()
    assert rows == [(0,), (3,)]


@pytest.mark.slow
def test_lm_eval_runs_the_documented_local_task(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.plugins import blocks

    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/yes_or_no.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "tasks/yes_or_no.jsonl").write_text(blocks("json")[0])
    monkeypatch.chdir(tmp_path)
    found: list[EvaluatorFigures] = []
    options = {"tasks": ["yes_or_no"], "include": "tasks", "device": "cpu"}
    base = made.parent / "causal"
    evaluate(made, base, {"lm-eval": options}, finish(), found.append, pytest.fail)
    assert [each.version for each in found] == [0, 3]
    assert 0 <= found[0].figures["yes_or_no/acc"] <= 1


def test_a_tracker_that_fails_is_one_warning(
    run: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(installed / "site-packages"), str(ROOT)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    request = {"directory": str(run), "name": "lines", "options": {"path": str(installed)}}
    tracker = ChildPlugin("tracker", request, "tracker lines", EventKind.TRACKER, 60.0)
    tracker.start()
    tracker.ask_to_finish("finished")
    tracker.finish("finished", threading.Event())
    figures, (event,) = tracker.collect()
    assert (figures, event.level) == ([], "warning")
    assert event.text.startswith("tracker lines ended, and the run goes on: IsADirectoryError")


def test_a_tracker_that_hangs_is_killed_at_the_end(
    run: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(installed / "site-packages"), str(ROOT)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    os.mkfifo(installed / "pipe")  # opening it waits for a reader, who never comes
    request = {"directory": str(run), "name": "lines", "options": {"path": str(installed / "pipe")}}
    tracker = ChildPlugin("tracker", request, "tracker lines", EventKind.TRACKER, 0.1)
    tracker.start()
    tracker.finish("finished", threading.Event())
    assert [event.text for event in tracker.collect()[1]] == ["tracker lines: no end within 0.1 s"]
