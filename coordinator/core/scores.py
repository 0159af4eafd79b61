"""Scores of updates that their clients cannot inflate: requests, records, and how long to wait.

`server` and `cosine` scores are computed by the driver. A `federated` score is the mean drop in
loss that two other clients measure on their own rows: evaluations with a candidate. The commit of a
ready buffer waits for missing scores, but at most `aggregation.score_deadline_s`.
`coordinator/aggregation/contribution.py` makes weights of the scores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from types import MappingProxyType

from common.protocol.kinds import RejectionKind
from common.protocol.naming import LOCAL_SITE
from coordinator.core.evaluations import close_evaluations, evaluators, issue, may_issue
from coordinator.core.events import (
    RecordScores,
    Rejection,
    RequestScores,
    ScoresArrived,
    UpdateScore,
)
from coordinator.core.minimum import site_is_live
from coordinator.core.state import BufferedUpdate, CoordinatorState, OpenEvaluation, Plan
from coordinator.core.transition import Transition

EVALUATORS = 2  # clients that score one update


def is_scored(plan: Plan) -> bool:
    """Return whether weights follow from scores that clients cannot inflate."""
    return plan.aggregation.contribution_source in ("server", "federated", "cosine")


def request_scores(plan: Plan, state: CoordinatorState, now: float, ready: bool) -> Transition:
    """Request the scores that are missing; `ready` if the buffer could be committed."""
    source = plan.aggregation.contribution_source
    if state.stopping or not is_scored(plan):
        return Transition(state)
    new = [update for update in missing_scores(state) if update.task_id not in state.scoring]
    if not new:
        return Transition(state)
    if source == "federated":
        return _ask_evaluators(plan, state, new, now)
    if source == "server":
        return _request(plan, state, new)
    if source == "cosine" and ready and len(state.buffer) > 1:
        return _request(plan, state, state.buffer)
    return Transition(state)


def missing_scores(state: CoordinatorState) -> list[BufferedUpdate]:
    """Return the buffered updates without a score."""
    return [update for update in state.buffer if update.task_id not in state.scores]


def backlog(plan: Plan, state: CoordinatorState) -> int:
    """Return how many updates of a buffer that is ready wait for scores that are still to come."""
    if not (is_scored(plan) and state.full_at):
        return 0
    return sum(update.task_id not in state.unscored for update in missing_scores(state))


def backlog_limit(plan: Plan) -> int:
    """Return how many updates may wait for scores until no new task is issued.

    Else the buffer would grow without end wherever clients train faster than they are scored.
    """
    return plan.schedule.buffer + plan.schedule.concurrency


def must_wait(plan: Plan, state: CoordinatorState, now: float) -> bool:
    """Return whether a ready buffer waits for scores; `full_at` is when it began to."""
    if not is_scored(plan) or state.stopping:
        return False
    if state.full_at and now - state.full_at >= plan.aggregation.score_deadline_s:
        return False
    source = plan.aggregation.contribution_source
    if source == "federated":
        scored = {each.candidate for each in state.evaluations.values()}
        return any(
            update.task_id in scored
            or (update.task_id not in state.scoring and choose_evaluators(plan, state, update, now))
            for update in missing_scores(state)
        )
    to_come = any(update.task_id not in state.unscored for update in missing_scores(state))
    return to_come and (source == "server" or len(state.buffer) > 1)


def handle_scores(plan: Plan, state: CoordinatorState, event: ScoresArrived) -> Transition:
    """Record the scores that were requested; others, and those of applied updates, are ignored.

    An update whose score cannot be computed is not waited for.
    """
    wanted = {each.task_id for each in missing_scores(state)} & state.scoring
    requested = [score for score in event.scores if score.task_id in wanted]
    scores: dict[str, UpdateScore] = {}
    for score in requested:
        if math.isfinite(score.score):
            scores.setdefault(score.task_id, score)
    lacking = {score.task_id for score in requested} - scores.keys()
    state = replace(state, unscored=state.unscored | lacking)
    return _record(plan, state, tuple(scores.values()))


def record_answered(plan: Plan, state: CoordinatorState) -> Transition:
    """Record the scores of updates whose evaluators have all answered, refused or run out of time.

    An update that nobody could evaluate stays without a score.
    """
    if not state.answers:
        return Transition(state)
    pending = {each.candidate for each in state.evaluations.values()}
    scores = []
    for update in missing_scores(state):
        answers = [a for a in state.answers.values() if a.task_id == update.task_id]
        if answers and update.task_id not in pending:
            score = fmean(answer.drop for answer in answers)
            seconds = math.fsum(answer.seconds for answer in answers)
            nbytes = sum(answer.nbytes for answer in answers)
            scores.append(UpdateScore(update.task_id, score, seconds, nbytes))
    return _record(plan, state, tuple(scores))


def give_up_waiting(plan: Plan, state: CoordinatorState) -> Transition:
    """Close the evaluations that still score updates of the buffer, and use what was answered."""
    buffered = {update.task_id for update in state.buffer}
    pending = [each for each in state.evaluations.values() if each.candidate in buffered]
    rejection = Rejection(RejectionKind.EXPIRED, "the update was applied without this evaluation")
    closed = close_evaluations(state, pending, rejection)
    recorded = record_answered(plan, closed.state)
    return closed.then(*recorded.actions, state=recorded.state)


def choose_evaluators(
    plan: Plan, state: CoordinatorState, update: BufferedUpdate, now: float
) -> list[str]:
    """Return the clients that score an update: a sample of the live ones, by a hash of its task.

    The update's own client and others of its site are left out, or a site could praise itself.
    Both sides have to agree that updates are shown to other clients.
    """
    members = state.members(plan)
    own = members.get(update.client_id)
    if own is None or not own.shares_updates or not plan.evaluation.available:
        return []
    able = [
        name
        for name in evaluators(plan, state, plan.current_phase(state.version))
        if name != update.client_id
        and members[name].shares_updates
        and (members[name].site != own.site or own.site == LOCAL_SITE)
        and site_is_live(plan, state, members[name].site, now)
    ]
    return sorted(able, key=lambda name: _draw(update.task_id, name))[:EVALUATORS]


def _draw(task_id: str, client_id: str) -> bytes:
    return hashlib.sha256(f"{task_id} {client_id}".encode()).digest()


def _ask_evaluators(
    plan: Plan, state: CoordinatorState, updates: Iterable[BufferedUpdate], now: float
) -> Transition:
    """Issue the evaluations at once, whether the sites have room or not: the update waits."""
    done = Transition(state)
    if not may_issue(plan, state, now):
        return done
    members, phase = state.members(plan), plan.current_phase(state.version)
    lease_until = now + plan.schedule.lease_s
    for update in updates:
        chosen = choose_evaluators(plan, state, update, now)
        for name in chosen:
            new = OpenEvaluation(
                task_id="",
                client_id=name,
                version=update.base_version,
                phase=phase,
                issued_at=now,
                lease_until=lease_until,
                candidate=update.task_id,
            )
            issued = issue(done.state, name, members[name].site, new)
            done = done.then(*issued.actions, state=issued.state)
        if chosen:
            scoring = done.state.scoring | {update.task_id}
            done = done.then(state=replace(done.state, scoring=scoring))
    return done


def _request(plan: Plan, state: CoordinatorState, updates: Sequence[BufferedUpdate]) -> Transition:
    scoring = state.scoring | {update.task_id for update in updates}
    request = RequestScores(plan.aggregation.contribution_source, tuple(updates))
    return Transition(replace(state, scoring=scoring), (request,))


def _record(plan: Plan, state: CoordinatorState, scores: Sequence[UpdateScore]) -> Transition:
    if not scores:
        return Transition(state)
    known = {**state.scores, **{score.task_id: score.score for score in scores}}
    answers = {key: each for key, each in state.answers.items() if each.task_id not in known}
    after = replace(state, scores=MappingProxyType(known), answers=MappingProxyType(answers))
    newest = {u.client_id: known[u.task_id] for u in state.buffer if u.task_id in known}
    for name, score in newest.items():
        after = after.with_client(name, replace(after.client(name), last_score=score))
    record = RecordScores(plan.aggregation.contribution_source, tuple(scores))
    return Transition(after, (record,))
