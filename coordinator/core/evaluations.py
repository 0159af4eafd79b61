"""Rounds of federated evaluation: when a version is due, who is asked, and when a round ends.

Clients evaluate version 0, the end of each phase (once with the objective of that phase and once
with that of the next one), the last version, and every `evaluation.every` versions. A round asks
each client once, before its next training task, and ends when all live ones have answered, or after
`evaluation.deadline_s`, not counting pauses, outages and restarts.
`coordinator/core/evaluation_answers.py` handles the answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from common.protocol.kinds import RejectionKind
from coordinator.core.events import (
    CloseEvaluation,
    CloseRound,
    IssueEvaluation,
    OpenRound,
    Rejection,
)
from coordinator.core.minimum import (
    at_least,
    enough_clients,
    minimum,
    site_is_live,
    trainable_clients,
)
from coordinator.core.state import CoordinatorState, EvaluationRound, OpenEvaluation, Plan
from coordinator.core.transition import Transition

ATTEMPTS = 3  # of an evaluation until it is given up: its workers may be unable even to refuse


def may_issue(plan: Plan, state: CoordinatorState, now: float) -> bool:
    """Return whether evaluations may be issued now."""
    waits = state.paused or state.stopping or state.draining
    return state.store_up and not waits and enough_clients(plan, state, now)


def row_limit(plan: Plan, state: CoordinatorState, client_id: str, phase: int) -> int:
    """Return how many rows of a client count in an evaluation: as many as it trains with, at most.

    Validation rows are part of a client's claim, too, and the invitation bounds them in this way.
    """
    client = state.members(plan).get(client_id)
    return 0 if client is None else min(plan.evaluation.max_rows, plan.rows(client, phase))


def versions_needed(plan: Plan, state: CoordinatorState) -> set[int]:
    """Return the versions whose adapters must stay, because clients evaluate or score with them."""
    open_ones = {(e.version, e.phase) for e in state.evaluations.values()}
    pairs = open_ones | {(each.version, each.phase) for each in state.rounds}
    references = {plan.reference_version(phase) for _, phase in pairs}
    scored = plan.aggregation.contribution_source in ("server", "federated")
    bases = {update.base_version for update in state.buffer} if scored else set[int]()
    return {version for version, _ in pairs} | bases | {v for v in references if v is not None}


# rounds


def due_rounds(plan: Plan, state: CoordinatorState, now: float) -> tuple[tuple[int, int], ...]:
    """Return the rounds of the current version that are due, as (version, phase).

    Version 0 waits until the run has enough live clients, of which there must be one.
    """
    version, settings = state.version, plan.evaluation
    if not settings.federated or version <= state.evaluated:
        return ()
    if version == 0:
        needed = max(1, minimum(plan, state))
        return ((0, 0),) if at_least(plan, state, now, needed) else ()
    phase = plan.phase_before(version)
    if version == plan.phase_end(phase):
        following = phase + 1
        return ((version, phase), (version, following))[: 2 if following < len(plan.phases) else 1]
    if settings.every and version % settings.every == 0:
        return ((version, phase),)
    return ()


def open_rounds(
    state: CoordinatorState, pairs: Iterable[tuple[int, int]], now: float
) -> Transition:
    """Open a round for each (version, phase)."""
    done = Transition(state)
    for version, phase in pairs:
        rounds = (*done.state.rounds, EvaluationRound(version, phase, now))
        after = replace(done.state, rounds=rounds, evaluated=max(done.state.evaluated, version))
        done = done.then(OpenRound(version, phase), state=after)
    return done


def evaluators(plan: Plan, state: CoordinatorState, phase: int) -> list[str]:
    """Return the clients that can evaluate with the objective of a phase."""
    trainable = trainable_clients(plan, state, phase)
    return [name for name in trainable if name not in state.declined]


def close_rounds(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    """Close the rounds that all live clients have answered or whose time is up.

    A round that nobody could be asked for, because no client was live, waits for its time.
    """
    done = Transition(state)
    for each in state.rounds:
        if _is_late(plan, state, each.opened_at, now) or _is_answered(plan, done.state, each, now):
            closed = _close_round(plan, done.state, each)
            done = done.then(*closed.actions, state=closed.state)
    return done


def _is_late(plan: Plan, state: CoordinatorState, since: float, now: float) -> bool:
    """Return whether a deadline is over; none ends while nobody can be asked."""
    stands_still = state.paused or not state.store_up
    return not stands_still and now - since >= plan.evaluation.deadline_s


def restart_deadlines(state: CoordinatorState, now: float) -> CoordinatorState:
    """Give open rounds and evaluations their whole time again, after a pause or an outage."""
    rounds = tuple(replace(each, opened_at=now) for each in state.rounds)
    opened = {key: replace(each, issued_at=now) for key, each in state.evaluations.items()}
    return replace(state, rounds=rounds, evaluations=MappingProxyType(opened))


def _is_answered(plan: Plan, state: CoordinatorState, each: EvaluationRound, now: float) -> bool:
    able, members = evaluators(plan, state, each.phase), state.members(plan)
    pending = [e for e in state.evaluations.values() if each.covers(e)]
    live = {name for name in able if site_is_live(plan, state, members[name].site, now)}
    if not live:  # all may come back; after a restart, nobody was seen yet
        return not pending and each.asked.issuperset(able)
    waiting = any(e.client_id in live or now < e.lease_until for e in pending)
    return not waiting and each.asked.issuperset(live)


def _close_round(plan: Plan, state: CoordinatorState, each: EvaluationRound) -> Transition:
    open_ones = [e for e in state.evaluations.values() if each.covers(e)]
    reason = f"the evaluation of version {each.version} has ended without it"
    done = close_evaluations(state, open_ones, Rejection(RejectionKind.EXPIRED, reason))
    able = evaluators(plan, state, each.phase)
    missing = tuple(name for name in able if name not in each.answered)
    rounds = tuple(r for r in done.state.rounds if r != each)
    close = CloseRound(each.version, each.phase, missing, len(each.answered))
    return done.then(close, state=replace(done.state, rounds=rounds))


def close_evaluations(
    state: CoordinatorState, evaluations: Iterable[OpenEvaluation], rejection: Rejection
) -> Transition:
    """Close open evaluations that no answer has decided."""
    done = Transition(state)
    for each in evaluations:
        close = CloseEvaluation(each.task_id, each.client_id, rejection)
        done = done.then(close, state=done.state.without_evaluation(each.task_id))
    return done


def close_evaluations_of(
    state: CoordinatorState, client_id: str, rejection: Rejection
) -> Transition:
    """Close the open evaluations of a client."""
    own = [each for each in state.evaluations.values() if each.client_id == client_id]
    return close_evaluations(state, own, rejection)


# evaluations


def issue(state: CoordinatorState, client_id: str, site: str, new: OpenEvaluation) -> Transition:
    """Issue an evaluation; `new` has no task id yet."""
    number = state.evaluations_issued + 1
    named = replace(new, task_id=f"e{number:06d}", client_id=client_id)
    after = replace(state.with_evaluation(named), evaluations_issued=number)
    return Transition(after, (IssueEvaluation(named, site),))


def issue_evaluations(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    """Issue evaluations again whose lease has run out, and those of open rounds that have room."""
    done = _expire_or_reissue(plan, state, now)
    if not done.state.rounds or not may_issue(plan, done.state, now):
        return done
    for each in done.state.rounds:
        issued = _issue_round(plan, done.state, each, now)
        done = done.then(*issued.actions, state=issued.state)
    return done


def _issue_round(
    plan: Plan, state: CoordinatorState, each: EvaluationRound, now: float
) -> Transition:
    """Ask the clients that have no task, as far as their sites have room.

    In a synchronous run a site's queue holds a whole round anyway.
    """
    members, done = state.members(plan), Transition(state)
    running = running_by_site(plan, state)
    busy = {task.client_id for task in state.tasks.values()}
    synchronous = plan.schedule.reissue == "commit"
    asked = set(each.asked)
    for name in evaluators(plan, state, each.phase):
        site = members[name].site
        workers = state.workers_by_site.get(site, 0)
        room = workers > 0 if synchronous else running[site] < workers
        if name in asked or name in busy or not room:
            continue
        lease_until = now + plan.schedule.lease_s
        new = OpenEvaluation("", name, each.version, each.phase, now, lease_until)
        issued = issue(done.state, name, site, new)
        done = done.then(*issued.actions, state=issued.state)
        asked.add(name)
        running[site] += 1
    if len(asked) == len(each.asked):
        return done
    return done.then(state=done.state.with_round(replace(each, asked=frozenset(asked))))


def running_by_site(plan: Plan, state: CoordinatorState) -> Counter[str]:
    """Return how many tasks each site has, without parked ones.

    Evaluations count, except in a synchronous run: there they only come first in a site's queue.
    """
    members = state.members(plan)
    tasks = Counter(members[t.client_id].site for t in state.tasks.values() if not t.parked)
    if plan.schedule.reissue == "commit":
        return tasks
    return tasks + Counter(members[e.client_id].site for e in state.evaluations.values())


def _expire_or_reissue(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    done, members = Transition(state), state.members(plan)
    if not state.evaluations:
        return done
    allowed = may_issue(plan, state, now)
    for each in tuple(state.evaluations.values()):
        site = members[each.client_id].site
        if _is_late(plan, state, each.issued_at, now) or _is_lost(state, each, site, now):
            rejection = Rejection(RejectionKind.EXPIRED, "the evaluation was not answered in time")
            closed = close_evaluations(done.state, (each,), rejection)
            done = done.then(*closed.actions, state=closed.state)
        elif now >= each.lease_until and allowed and site in state.workers_by_site:
            lease_until = now + plan.schedule.lease_s
            again = replace(each, attempt=each.attempt + 1, lease_until=lease_until)
            after = done.state.with_evaluation(again)
            done = done.then(IssueEvaluation(again, site), state=after)
    return done


def _is_lost(state: CoordinatorState, each: OpenEvaluation, site: str, now: float) -> bool:
    expired = now >= each.lease_until and site in state.workers_by_site and state.store_up
    return expired and each.attempt >= ATTEMPTS
