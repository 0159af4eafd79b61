"""Evaluations by clients through the whole coordinator: rounds, scores, crashes, a lost store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.embedded.broker import EmbeddedBroker
from common.evaluation.federated import federated_evaluations
from common.protocol.evaluations import EvalTask
from common.protocol.kinds import EventKind
from common.run_directory.recorded_run import RecordedRun, read_run
from coordinator.publish.store_publisher import StorePublisher
from coordinator.storage import evaluation_rows
from coordinator.storage.journal import Journal
from coordinator.storage.spool import Spool
from tests.support.coordinator_records import START
from tests.support.polled_federation import (
    Crash,
    PolledConsumer,
    PolledFederation,
    check_complete,
    delta,
    loss_of,
)

ROUNDS = {"federated": True, "every": 1}


def recorded(federation: PolledFederation) -> RecordedRun:
    return read_run(federation.directory)


def check_rounds(federation: PolledFederation) -> None:
    """Check that every version was evaluated by all clients, with the figures of its adapter."""
    run = recorded(federation)
    found = federated_evaluations(run.evaluations)
    assert [each.version for each in found] == [0, 1, 2, 3]
    for each in found:
        assert list(each.sums) == ["client_0", "client_1", "client_2"]
        if each.version in run.versions_on_disk():
            expected = loss_of(run.tensors(each.version))
            assert each.values()["nats_per_token"] == pytest.approx(expected)


def test_clients_evaluate_each_version_and_the_run_waits_for_the_last_one(
    tmp_path: Path, small_chunks: None
) -> None:
    federation = PolledFederation(tmp_path, evaluation=ROUNDS)
    check_complete(federation, federation.serve())
    check_rounds(federation)
    run = federation.topology.run
    for task in federation.evaluated:
        receipt = federation.store.get_receipt(run, "local", task.task_id)
        assert receipt is not None and receipt.state == "accepted"
    assert federation.dead_letters() == []


def check_scores(federation: PolledFederation) -> None:
    """Check that each update was scored by two other clients, and no candidate is left."""
    run = recorded(federation)
    owners = {update.task_id: update.client_id for update in run.updates}
    assert {score.task_id for score in run.scores} == owners.keys()
    rows = Journal.open(federation.directory / "run.db").rows(
        "SELECT candidate, client_id FROM evaluation WHERE candidate != '' AND state = 'accepted'"
    )
    for score in run.scores:
        evaluators = [client for candidate, client in rows if candidate == score.task_id]
        assert len(evaluators) == 2 and owners[score.task_id] not in evaluators
        assert score.score > 0 and score.seconds == 1.0 and score.nbytes > 0
    versions = {summary.sha256 for summary in run.versions}
    client = federation.redis.client
    left = {key for key in client.keys("fccl:*:blob:*") if client.ttl(key) < 0}
    assert {key.split(b":")[3].decode() for key in left} <= versions


def test_two_other_clients_score_an_update_and_its_candidate_is_removed(
    tmp_path: Path, small_chunks: None
) -> None:
    federation = PolledFederation(tmp_path, aggregation={"contribution_source": "federated"})
    seen: list[tuple[EvalTask, Any]] = []
    evaluate = federation.evaluate

    def watch(task: EvalTask) -> Any:
        assert task.candidate is not None
        seen.append((task, federation.fetch(task.candidate)))
        return evaluate(task)

    federation.evaluate = watch  # type: ignore[method-assign]
    check_complete(federation, federation.serve())
    check_scores(federation)
    first = [tensors for task, tensors in seen if task.version == 0]
    deltas = [delta(update.task_id) for update in recorded(federation).updates]
    for tensors in first:
        assert any(
            all(np.allclose(tensors[name], START[name] + d[name]) for name in START) for d in deltas
        )


POINTS: dict[str, tuple[object, str, bool]] = {
    # name: (class or module, function, crash after the call instead of before it)
    "before the candidate is published": (StorePublisher, "_put_candidate", False),
    "before the step's transaction": (Journal, "write", False),
    "inside the transaction, evaluation issued": (evaluation_rows, "put_evaluation", True),
    "after the transaction": (Journal, "write", True),
    "candidate published, before its task": (StorePublisher, "_put_candidate", True),
    "before the candidate is removed": (StorePublisher, "_drop_candidate", False),
    "before the spool is cleaned": (Spool, "drop", False),
    "before the outbox is published": (EmbeddedBroker, "publish_task", False),
    "published, not marked": (Journal, "mark_sent", False),
    "before the ack": (PolledConsumer, "ack", False),
    "after the ack": (PolledConsumer, "ack", True),
}


FIRST, *OTHERS = POINTS


@pytest.mark.parametrize(
    "point", [FIRST, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS)]
)
def test_evaluations_and_scores_survive_crashes_at_every_point(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    kind, method, after = POINTS[point]
    original, calls = getattr(kind, method), iter(range(10**6))

    def crashing(*args: Any, **kwargs: Any) -> Any:
        crash = next(calls) in {0, 1, 3, 6, 10, 15}
        if crash and not after:
            raise Crash
        result = original(*args, **kwargs)
        if crash:
            raise Crash
        return result

    federation = PolledFederation(
        tmp_path, aggregation={"contribution_source": "federated"}, evaluation=ROUNDS
    )
    monkeypatch.setattr(kind, method, crashing)
    outcome, crashes = federation.serve_through_crashes()
    monkeypatch.undo()
    assert crashes >= 2
    check_complete(federation, outcome)
    check_rounds(federation)
    check_scores(federation)
    assert federation.dead_letters() == []


@pytest.mark.slow
def test_a_store_that_comes_back_empty_gets_candidates_and_evaluated_versions_again(
    tmp_path: Path, small_chunks: None
) -> None:
    federation = PolledFederation(
        tmp_path, aggregation={"contribution_source": "federated"}, evaluation=ROUNDS
    )

    def outage() -> None:
        """Lose everything, with evaluations on the queue; the worker is back after a tick."""
        if federation.turns % 20 == 8 and len(federation.evaluated) < 20:
            federation.redis.client.flushall()
            federation.worker_is_absent = True
        if federation.turns % 20 == 14:
            federation.worker_is_absent = False

    federation.on_turn = outage
    check_complete(federation, federation.serve())
    check_rounds(federation)
    check_scores(federation)
    assert EventKind.RESTORED in {event.kind for event in federation.events}


def test_cosines_are_journaled_and_cost_no_bytes(tmp_path: Path, small_chunks: None) -> None:
    federation = PolledFederation(tmp_path, aggregation={"contribution_source": "cosine"})
    check_complete(federation, federation.serve())
    run = recorded(federation)
    assert len(run.scores) == 6
    # All deltas of the fake worker point in one direction.
    assert [score.score for score in run.scores] == pytest.approx([1.0] * 6)
    assert all(score.source == "cosine" and score.nbytes == 0 for score in run.scores)
    summaries = [json.loads(line) for line in open_lines(federation)]
    assert {line["score"] for line in summaries if "score" in line} != set()


def open_lines(federation: PolledFederation) -> list[str]:
    return (federation.directory / "client_metrics.jsonl").read_text().splitlines()


def test_an_update_whose_file_is_damaged_costs_a_warning_and_no_score(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise OSError("gone")

    federation = PolledFederation(tmp_path, aggregation={"contribution_source": "cosine"})
    monkeypatch.setattr(Spool, "tensors", broken)
    check_complete(federation, federation.serve())
    assert recorded(federation).scores == ()
    warnings = [event.kind for event in federation.events if event.level == "warning"]
    assert set(warnings) == {EventKind.SCORES}
