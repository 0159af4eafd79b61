"""Admission of answers to evaluations: who may answer, and which sums can be right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.evaluation.sums import EvaluationSums
from common.protocol.kinds import RejectionKind
from coordinator.core.evaluation_answers import candidate_answer, handle_answer
from coordinator.core.events import AcceptEvaluation, CloseEvaluation, DiscardMessage
from coordinator.core.state import (
    Client,
    CoordinatorState,
    EvaluationPlan,
    EvaluationRound,
    OpenEvaluation,
)
from tests.support.virtual_federation import make_plan, make_result

EVALUATION = OpenEvaluation("e000001", "c0", 3, 0, 0.0, 60.0, attempt=2)
CANDIDATE = replace(EVALUATION, candidate="t000007")
PLAN = make_plan(
    {
        "c0": Client("c0", "local", {"sft": 50, "cls": 50}),
        "c1": Client("c1", "local", {"sft": 50}),
        "ward": Client("ward", "ward", {"sft": 50}),
    },
    versions=9,
    evaluation=EvaluationPlan(federated=True, max_rows=20, max_length=16),
)
STATE = CoordinatorState(
    version=4, rounds=(EvaluationRound(3, 0, 0.0, frozenset({"c0"})),)
).with_evaluation(EVALUATION)
TEN = EvaluationSums(rows=10, loss=200.0, tokens=100)


def test_an_answer_is_accepted_and_counts_in_its_round() -> None:
    done = handle_answer(PLAN, STATE, answer := make_result(EVALUATION))
    assert done.actions == (AcceptEvaluation(EVALUATION, answer.result),)
    assert not done.state.evaluations and done.state.rounds[0].answered == {"c0"}


def test_an_answer_to_an_earlier_attempt_counts() -> None:
    done = handle_answer(PLAN, STATE, make_result(EVALUATION, attempt=1))
    assert isinstance(done.actions[0], AcceptEvaluation)


@pytest.mark.parametrize(
    "changed",
    [
        {"site": "ward"},
        {"client_id": "nobody"},
        {"client_id": "c1"},
        {"client_id": "ward", "site": "ward"},
        {"task_id": "e000009"},
    ],
)
def test_an_answer_by_somebody_else_is_discarded(changed: dict[str, object]) -> None:
    done = handle_answer(PLAN, STATE, make_result(EVALUATION, **changed))
    assert [type(action) for action in done.actions] == [DiscardMessage]
    assert done.state == STATE


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"attempt": 3}, RejectionKind.ATTEMPT),
        ({"version": 2}, RejectionKind.VERSION),
        ({"sums": EvaluationSums(rows=21, loss=1.0, tokens=100)}, RejectionKind.STATISTICS),
        ({"sums": EvaluationSums(rows=10, loss=1.0, tokens=161)}, RejectionKind.STATISTICS),
        ({"sums": EvaluationSums(rows=10, loss=1e9, tokens=100)}, RejectionKind.STATISTICS),
        ({"candidate_sums": TEN}, RejectionKind.STATISTICS),
    ],
)
def test_an_answer_that_cannot_be_right_closes_the_evaluation_with_the_reason(
    changed: dict[str, object], kind: RejectionKind
) -> None:
    done = handle_answer(PLAN, STATE, make_result(EVALUATION, **changed))
    close = done.actions[0]
    assert isinstance(close, CloseEvaluation) and close.rejection.kind is kind
    assert not done.state.evaluations and done.state.rounds[0].answered == set()
    assert done.state.client("c0").strikes == 0


def test_a_client_counts_with_no_more_rows_than_it_trains_with() -> None:
    few = replace(PLAN, clients={"c0": Client("c0", "local", {"sft": 9})})
    done = handle_answer(few, STATE, make_result(EVALUATION))
    assert isinstance(done.actions[0], CloseEvaluation)


@pytest.mark.parametrize(
    "sums",
    [
        None,
        EvaluationSums(rows=9, loss=1.0, tokens=100),
        EvaluationSums(rows=10, loss=1.0, tokens=99),
        EvaluationSums(rows=10, loss=1e9, tokens=100),
    ],
)
def test_a_candidate_has_to_be_evaluated_on_the_same_rows(sums: EvaluationSums | None) -> None:
    state = STATE.with_evaluation(CANDIDATE)
    done = handle_answer(PLAN, state, make_result(CANDIDATE, candidate_sums=sums))
    close = done.actions[0]
    assert isinstance(close, CloseEvaluation)
    assert close.rejection.kind is RejectionKind.STATISTICS


def test_the_drop_of_a_candidate_is_per_token() -> None:
    result = make_result(CANDIDATE, loss=2.0, candidate=1.5).result
    answer = candidate_answer(PLAN, 0, "t000007", result)
    assert answer is not None and answer.drop == pytest.approx(0.5)
    empty = EvaluationSums(rows=0, loss=0.0)
    nothing = result.model_copy(update={"sums": empty, "candidate_sums": empty})
    assert candidate_answer(PLAN, 0, "t000007", nothing) is None
