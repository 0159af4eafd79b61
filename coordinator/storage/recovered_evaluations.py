"""Recovery of what clients evaluate, and of the scores of updates; part of `recovery.py`."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from common.protocol.evaluations import EvalResult
from coordinator.core.evaluation_answers import candidate_answer
from coordinator.core.evaluations import restart_deadlines
from coordinator.core.state import (
    CandidateAnswer,
    CoordinatorState,
    EvaluationRound,
    OpenEvaluation,
    Plan,
)
from coordinator.storage.journal import Journal


def recover_evaluations(
    plan: Plan, journal: Journal, state: CoordinatorState, now: float, lease_until: float
) -> CoordinatorState:
    """Return a state with its evaluations, rounds and scores; its buffer is recovered already.

    Rounds and evaluations have their whole time again, or a stop over night would end them. Updates
    with evaluations of them count as requested; other scores are requested again.
    """
    issued, evaluated = journal.rows(
        "SELECT (SELECT COUNT(*) FROM evaluation),"
        " (SELECT COALESCE(MAX(version), -1) FROM evaluation_round)"
    )[0]
    declined = journal.rows("SELECT DISTINCT client_id FROM evaluation WHERE state = 'declined'")
    scores = dict(
        journal.rows(
            "SELECT task_id, score FROM score JOIN accepted USING (task_id) WHERE version IS NULL"
        )
    )
    candidates = journal.rows("SELECT DISTINCT candidate FROM evaluation WHERE candidate <> ''")
    buffered = {update.task_id for update in state.buffer}
    state = replace(
        state,
        evaluations=MappingProxyType(_open_evaluations(journal, lease_until)),
        rounds=_open_rounds(journal),
        evaluated=evaluated,
        evaluations_issued=issued,
        declined=frozenset(client for (client,) in declined),
        scores=MappingProxyType(scores),
        scoring=frozenset(task for (task,) in candidates if task in buffered),
        answers=MappingProxyType(_answers(plan, journal, buffered - scores.keys())),
    )
    return restart_deadlines(state, now)


def last_scores(journal: Journal, phase: int) -> dict[str, float]:
    """Return the score of each client's newest scored update of a phase."""
    query = (
        "SELECT accepted.client_id, score FROM score JOIN accepted USING (task_id)"
        " JOIN task USING (task_id) WHERE phase = ? ORDER BY seq"
    )
    return dict(journal.rows(query, phase))


def _open_evaluations(journal: Journal, lease_until: float) -> dict[str, OpenEvaluation]:
    query = (
        "SELECT task_id, client_id, version, phase, issued_at, attempt, candidate"
        " FROM evaluation WHERE state = 'open' ORDER BY rowid"
    )
    return {
        task: OpenEvaluation(task, client, version, phase, at, lease_until, attempt, candidate)
        for task, client, version, phase, at, attempt, candidate in journal.rows(query)
    }


def _open_rounds(journal: Journal) -> tuple[EvaluationRound, ...]:
    query = (
        "SELECT version, phase, opened_at FROM evaluation_round WHERE closed_at IS NULL"
        " ORDER BY rowid"
    )
    rounds = []
    for version, phase, opened_at in journal.rows(query):
        asked = journal.rows(
            "SELECT client_id, state FROM evaluation WHERE version = ? AND phase = ?"
            " AND candidate = '' AND issued_at >= ?",
            *(version, phase, opened_at),
        )
        answered = frozenset(client for client, state in asked if state == "accepted")
        clients = frozenset(client for client, _ in asked)
        rounds.append(EvaluationRound(version, phase, opened_at, clients, answered))
    return tuple(rounds)


def _answers(plan: Plan, journal: Journal, unscored: set[str]) -> dict[str, CandidateAnswer]:
    answers = {}
    query = (
        "SELECT task_id, phase, candidate, result FROM evaluation"
        " WHERE state = 'accepted' AND candidate <> ''"
    )
    for task, phase, candidate, text in journal.rows(query):
        if candidate in unscored:
            result = EvalResult.model_validate_json(text)
            answer = candidate_answer(plan, phase, candidate, result)
            if answer is not None:
                answers[task] = answer
    return answers
