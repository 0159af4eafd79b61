"""Answers to evaluations: their admission, and refusals.

Sums are claims, as losses are; admission bounds them by the rows that the client counts with.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from common.evaluation.sums import EvaluationSums, check_sums, mean_loss
from common.protocol.evaluations import EvalResult
from common.protocol.fields import MAX_LOSS
from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core.evaluations import close_evaluations_of, row_limit
from coordinator.core.events import (
    MAX_TEXT,
    AcceptEvaluation,
    CloseEvaluation,
    DiscardMessage,
    EvaluationArrived,
    Rejection,
    TaskRefused,
    log_event,
)
from coordinator.core.state import CandidateAnswer, CoordinatorState, OpenEvaluation, Plan
from coordinator.core.transition import Transition


def handle_answer(plan: Plan, state: CoordinatorState, event: EvaluationArrived) -> Transition:
    """Accept an answer, close its evaluation with the reason, or discard the message."""
    result = event.result
    evaluation = state.evaluations.get(result.task_id)
    problem = _check_sender(plan, state, event)
    if evaluation is None or problem:
        return _discard(state, problem or f"evaluation {result.task_id} was never issued")
    rejection = check_result(plan, state, evaluation, result)
    if rejection is None:
        return accept_evaluation(plan, state, evaluation, result)
    close = CloseEvaluation(result.task_id, result.client_id, rejection, result.attempt)
    rejected = log_event(
        "warning",
        EventKind.REJECTED,
        f"evaluation by {result.client_id} rejected: {rejection.reason}",
        client=result.client_id,
        task=result.task_id,
        rejection=rejection.kind.value,
        reason=rejection.reason,
    )
    return Transition(state.without_evaluation(result.task_id), (close, rejected))


def check_result(
    plan: Plan, state: CoordinatorState, evaluation: OpenEvaluation, result: EvalResult
) -> Rejection | None:
    """Return why the sender's answer does not count; None if it does."""
    if result.attempt > evaluation.attempt:
        return Rejection(RejectionKind.ATTEMPT, f"attempt {result.attempt} was never issued")
    if result.version != evaluation.version:
        problem = f"version {result.version} was evaluated, not {evaluation.version}"
        return Rejection(RejectionKind.VERSION, problem)
    problem = _check_rows(plan, state, evaluation, result)
    return Rejection(RejectionKind.STATISTICS, problem[:MAX_TEXT]) if problem else None


def accept_evaluation(
    plan: Plan, state: CoordinatorState, evaluation: OpenEvaluation, result: EvalResult
) -> Transition:
    """Return the state after an answer was accepted."""
    after = state.without_evaluation(evaluation.task_id)
    for each in state.rounds:
        if each.covers(evaluation):
            answered = each.answered | {evaluation.client_id}
            after = after.with_round(replace(each, answered=answered))
    answer = candidate_answer(plan, evaluation.phase, evaluation.candidate, result)
    if answer is not None and answer.task_id in state.scoring:
        answers = {**after.answers, evaluation.task_id: answer}
        after = replace(after, answers=MappingProxyType(answers))
    return Transition(after, (AcceptEvaluation(evaluation, result),))


def candidate_answer(
    plan: Plan, phase: int, candidate: str, result: EvalResult
) -> CandidateAnswer | None:
    """Return the drop in mean loss with a candidate; None without one, or without rows."""
    if not candidate or result.candidate_sums is None:
        return None
    kind = plan.phases[phase].kind
    before, after = mean_loss(kind, result.sums), mean_loss(kind, result.candidate_sums)
    if before is None or after is None:
        return None
    return CandidateAnswer(candidate, before - after, result.seconds, result.nbytes)


def handle_refusal(plan: Plan, state: CoordinatorState, event: TaskRefused) -> Transition:
    """Close an open evaluation that a site refuses; all of its client, if it declines for good.

    It is no strike: a client need not evaluate.
    """
    evaluation = state.evaluations[event.task_id]
    if state.members(plan)[evaluation.client_id].site != event.site:
        return _discard(state, "a refusal of an evaluation that is not open at that site")
    if evaluation.client_id != event.client_id or event.attempt > evaluation.attempt:
        return _discard(state, "a refusal of another client's evaluation or of no attempt")
    if event.attempt < evaluation.attempt:
        return Transition(state)  # a duplicate, or overtaken: it is issued again already
    kind = RejectionKind.DECLINED if event.declines else RejectionKind.REFUSED
    rejection = Rejection(kind, f"refused: {event.reason}"[:MAX_TEXT])
    close = CloseEvaluation(event.task_id, event.client_id, rejection, event.attempt)
    text = f"{event.client_id} does not evaluate version {evaluation.version}: {event.reason}"
    refused = log_event(
        "warning", EventKind.REFUSED, text, client=event.client_id, task=event.task_id
    )
    after = state.without_evaluation(event.task_id)
    if event.declines:
        after = replace(after, declined=after.declined | {event.client_id})
        others = close_evaluations_of(after, event.client_id, rejection)
        return Transition(others.state, (close, refused, *others.actions))
    return Transition(after, (close, refused))


def _check_sender(plan: Plan, state: CoordinatorState, event: EvaluationArrived) -> str:
    result = event.result
    client = state.members(plan).get(result.client_id)
    if client is None:
        return f"unknown client {result.client_id}"
    if client.site != event.site:
        return f"site {event.site} may not speak for {result.client_id}"
    evaluation = state.evaluations.get(result.task_id)
    if evaluation is not None and evaluation.client_id != result.client_id:
        return f"evaluation {result.task_id} was issued to another client"
    return ""


def _check_rows(
    plan: Plan, state: CoordinatorState, evaluation: OpenEvaluation, result: EvalResult
) -> str:
    limit = row_limit(plan, state, evaluation.client_id, evaluation.phase)
    if result.sums.rows > limit:
        return f"{result.sums.rows} rows were evaluated, but at most {limit} count"
    if bool(evaluation.candidate) != (result.candidate_sums is not None):
        verb = "lacks" if evaluation.candidate else "has"
        return f"the answer {verb} the sums of a candidate"
    if problem := _check_sums(plan, evaluation, result.sums):
        return problem
    candidate = result.candidate_sums
    if candidate is None:
        return ""
    if (candidate.rows, candidate.tokens) != (result.sums.rows, result.sums.tokens):
        return "the candidate was evaluated on other rows than the version"
    return _check_sums(plan, evaluation, candidate)


def _check_sums(plan: Plan, evaluation: OpenEvaluation, sums: EvaluationSums) -> str:
    kind, settings = plan.phases[evaluation.phase].kind, plan.evaluation
    if problem := check_sums(kind, sums, max_length=settings.max_length, classes=settings.classes):
        return problem
    loss = mean_loss(kind, sums)
    if loss is not None and loss > MAX_LOSS:
        return f"a mean loss of {loss:.3g} is over the bound of {MAX_LOSS:.3g}"
    return ""


def _discard(state: CoordinatorState, reason: str) -> Transition:
    return Transition(state, (DiscardMessage(Rejection(RejectionKind.IDENTITY, reason)),))
