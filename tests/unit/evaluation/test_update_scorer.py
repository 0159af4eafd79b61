"""Scores of updates on held-out rows: the drop in loss, errors, and updates that are gone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cli.run.child_scorer import ChildScorer
from common.evaluation.sums import mean_loss
from common.protocol import codec
from common.protocol.kinds import EventKind
from common.protocol.tensors import Tensors
from common.protocol.updates import Update
from common.protocol.wire import pack
from common.run_directory.recorded_run import RecordedRun, read_run
from coordinator.core.events import LogEvent, UpdateScore
from coordinator.scores_source import ScoreRequest, ScoreSource
from coordinator.storage.spool import Spool, upload_name
from evaluation.evaluator import HELDOUT
from evaluation.update_scorer import UpdateScorer
from tests.support.evaluated_runs import causal_config, evaluator_of, make_run, write_sources
from tests.support.processes import eventually
from tests.support.virtual_federation import make_stats

CLIP = 0.5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("place"))


@pytest.fixture
def run(place: Path, tmp_path: Path) -> RecordedRun:
    return read_run(make_run(tmp_path, causal_config(place)))


def draw_delta(run: RecordedRun) -> Tensors:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(tensor.shape).astype(np.float32) / 10
        for name, tensor in run.tensors(0).items()
    }


def spooled(run: RecordedRun, base: int) -> ScoreRequest:
    """Put an update into the spool, and return the request for its score."""
    layout, data = codec.encode("fp32", draw_delta(run))
    record = Update(
        task_id=f"t{base}",
        attempt=1,
        client_id="client_0",
        worker_id="w",
        phase=0,
        base_version=base,
        stats=make_stats(),
        codec="fp32",
        layout=layout.digest,
        sha256=codec.digest(data),
    )
    frame = pack(record, data)
    upload = upload_name("local", codec.digest(frame))
    Spool(run.directory / "spool").write(upload, 0, frame)
    return ScoreRequest(f"t{base}", "client_0", base, CLIP, upload)


def scored(
    source: ScoreSource, requests: Sequence[ScoreRequest]
) -> tuple[list[UpdateScore], list[LogEvent]]:
    source.start()
    source.request(requests)
    scores: list[UpdateScore] = []
    events: list[LogEvent] = []

    def all_there() -> bool:
        found, notes = source.collect()
        scores.extend(found)
        events.extend(notes)
        return len(scores) == len(requests)

    try:
        eventually("scores", all_there)
    finally:
        source.close()
    return scores, events


def loss(run: RecordedRun, tensors: Tensors, version: int) -> float:
    """Return the loss of tensors by the objective that learns from `version`, computed directly."""
    evaluator = evaluator_of(run.directory)
    kind = run.config.phase[0 if version < 1 else 1].kind
    heldout = [(HELDOUT, row) for row in evaluator.heldout_rows(kind, 200)]
    rows = evaluator.encode(kind, version, heldout)
    evaluator.load_tensors(run.tensors(rows.reference))
    reference = evaluator.score(rows)
    evaluator.load_tensors(tensors)
    found = mean_loss(kind, rows.scorer.sums(rows.examples, evaluator.score(rows), reference))
    assert found is not None
    return found


def test_the_score_is_the_drop_in_loss_by_the_objective_of_the_updates_phase(
    run: RecordedRun,
) -> None:
    scores, events = scored(
        UpdateScorer(run, Path(run.base.name)), [spooled(run, base) for base in (0, 1, 0)]
    )
    assert events == []
    expected = []
    for base in (0, 1):
        start = run.tensors(base)
        moved = {n: start[n] + np.float32(CLIP) * d for n, d in draw_delta(run).items()}
        expected.append(loss(run, start, base) - loss(run, moved, base))
    assert [each.task_id for each in scores] == ["t0", "t1", "t0"]
    found = [each.score for each in scores]
    assert found == pytest.approx([*expected, expected[0]], rel=1e-3, abs=1e-5)
    assert all(each.seconds > 0 and each.nbytes == 0 for each in scores)
    assert expected[0] != 0 and expected[1] != 0


def test_an_update_that_was_applied_meanwhile_has_no_score(run: RecordedRun) -> None:
    gone = ScoreRequest(**{**asdict(spooled(run, 0)), "upload": "local.gone"})
    scores, events = scored(UpdateScorer(run, Path(run.base.name)), [gone, spooled(run, 1)])
    assert [math.isnan(each.score) for each in scores] == [True, False]
    assert events == []


def test_a_model_that_cannot_be_loaded_is_one_event_and_no_update_is_waited_for(
    run: RecordedRun, tmp_path: Path
) -> None:
    requests = [spooled(run, 0), spooled(run, 1)]
    scores, events = scored(UpdateScorer(run, tmp_path / "nothing"), requests)
    assert all(math.isnan(each.score) for each in scores)
    assert [event.kind for event in events] == [EventKind.SCORES]
    assert events[0].level == "warning" and events[0].text.startswith("no more scores")


@pytest.mark.slow
def test_a_child_process_computes_the_same_scores(run: RecordedRun) -> None:
    request = spooled(run, 0)
    own, _ = scored(UpdateScorer(run, Path(run.base.name)), [request])
    scores, events = scored(ChildScorer(run.directory, Path(run.base.name)), [request])
    assert events == []
    assert scores[0].score == pytest.approx(own[0].score, abs=1e-6)


@pytest.mark.slow
def test_a_child_process_that_fails_or_dies_is_an_event_and_no_update_is_waited_for(
    run: RecordedRun, tmp_path: Path
) -> None:
    request = spooled(run, 0)
    scores, events = scored(ChildScorer(run.directory, tmp_path / "nothing"), [request])
    assert math.isnan(scores[0].score) and len(events) == 1
    dying = ChildScorer(run.directory, Path(run.base.name))
    dying.start()
    dying.request([request])
    dying._child.kill()
    eventually("its end is noticed", lambda: not dying._thread.is_alive())
    dying.request([spooled(run, 1)])
    scores, events = dying.collect()
    assert {each.task_id for each in scores} == {"t0", "t1"}
    assert len(events) == 1 and "killed" in events[0].text
    dying.close()
