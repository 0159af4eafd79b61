"""Federations whose clients evaluate versions, and whose updates are scored by each source."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.demo.embedded import EmbeddedFederation, FederationCallbacks
from cli.run.local_tasks import LocalTasks
from common.config.loader import parse
from common.evaluation.federated import federated_evaluations
from common.protocol.feed import Event
from common.run_directory.recorded_run import RecordedRun, read_run
from coordinator.samples_source import SamplesSource
from coordinator.storage.run import open_run
from evaluation.evaluator import EvaluationLimits
from learning.training.device import Compute
from preparation.run import create_prepared_run
from tests.support.evaluated_runs import evaluator_of
from tests.support.tiny_model import tiny_model, tiny_tokenizer

VERSIONS, CLIENTS, BUFFER = 2, 3, 3


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FCCL_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path


def run_to_its_end(place: Path, source: str, *, federated: bool) -> tuple[RecordedRun, list[Event]]:
    config = parse(
        {
            "run": {"name": "scored", "dir": str(place), "keep_versions": 10},
            "model": {"name": str(place / "base"), "max_length": 192, "lora": {"r": 4}},
            "data": {"rows": 120, "clients": CLIENTS},
            "phase": [{"versions": VERSIONS, "local_steps": 2, "batch_size": 8, "lr": 5e-3}],
            "schedule": {"concurrency": CLIENTS, "buffer_size": BUFFER},
            "aggregation": {"contribution_source": source},
            "evaluation": {"federated": federated, "every": 1},
            "samples": {"prompts": 0},
        },
        "test",
    )
    create_prepared_run(config, place / "cache", lambda *_: None, lambda _: None)
    run = open_run(config, lambda _: place / "base")
    events: list[Event] = []
    federation = EmbeddedFederation(
        run,
        Compute(torch.device("cpu"), threads=1, autocast=False),
        config.incremental,
        SamplesSource(),
        FederationCallbacks(on_event=events.append),
        scores=LocalTasks(lambda *_: None, lambda _: None).update_scores(run),
    )
    federation.store.start()
    try:
        federation.start()
        outcome = federation.join()
    finally:
        federation.store.close()
    assert (outcome.complete, outcome.version) == (True, VERSIONS)
    run.journal.close()
    return read_run(run.directory), events


def check_figures(run: RecordedRun) -> None:
    """Check the clients' figures, and the pooled ones, against one evaluation of all rows here."""
    evaluations = federated_evaluations(run.evaluations)
    assert [each.version for each in evaluations] == list(range(VERSIONS + 1))
    evaluator = evaluator_of(run.directory)
    counts = {"sft": run.config.evaluation.max_rows}
    limits = EvaluationLimits(heldout=counts, client=counts)
    rows = evaluator.build_set("sft", 0, limits)
    for each in evaluations:
        evaluator.load_tensors(run.tensors(each.version))
        scores = evaluator.score(rows)
        direct = rows.metrics(rows.clients, scores, scores)
        assert each.pooled.rows == direct.rows > 0
        expected = direct.values["nats_per_token"]
        assert each.values()["nats_per_token"] == pytest.approx(expected, abs=1e-6)
        for client, values in each.client_values().items():
            own = rows.metrics([client], scores, scores)
            expected = own.values["nats_per_token"]
            assert values["nats_per_token"] == pytest.approx(expected, abs=1e-6)


def check_scores(run: RecordedRun, source: str) -> None:
    assert {score.task_id for score in run.scores} == {update.task_id for update in run.updates}
    assert {score.source for score in run.scores} == {source}
    assert all(score.seconds > 0 for score in run.scores)
    assert all((score.nbytes > 0) == (source == "federated") for score in run.scores)
    used = {u.task_id: u.score for version in run.versions for u in version.updates}
    assert used.keys() == {score.task_id for score in run.scores}


@pytest.mark.parametrize(
    "source",
    [
        "federated",
        pytest.param("server", marks=pytest.mark.slow),
        pytest.param("cosine", marks=pytest.mark.slow),
    ],
)
def test_a_run_with_scores_commits_with_them_and_its_figures_are_those_of_one_evaluation(
    place: Path, source: str
) -> None:
    run, events = run_to_its_end(place, source, federated=True)
    assert [event.text for event in events if event.level != "info"] == []
    check_figures(run)
    check_scores(run, source)
