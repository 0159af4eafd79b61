"""Leases of open tasks and evaluations: heartbeats renew them; without, they are issued again.

`coordinator/core/evaluations.py` issues evaluations again.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from common.protocol.kinds import EventKind
from coordinator.core.evaluations import restart_deadlines
from coordinator.core.events import Action, HeartbeatsRead, IssueTask, LogEvent, log_event
from coordinator.core.index_update import expires_at, index_of, with_index
from coordinator.core.state import CoordinatorState, OpenTask, Plan
from coordinator.core.transition import Transition


def renew_leases(
    plan: Plan, state: CoordinatorState, heartbeats: HeartbeatsRead, now: float
) -> CoordinatorState:
    """Update leases, live workers and wishes from heartbeats.

    A lease is renewed if a worker of the task's site names the task, and also while a worker of
    that site is busy with another one, because the task may wait in the site's queue. After an
    outage of the store every lease starts again, since none could be renewed meanwhile.
    """
    if not heartbeats.store_up:
        return replace(state, store_up=False)
    signals = heartbeats.signals
    busy_sites = {signal.site for signal in signals if signal.busy}
    named = {(signal.site, signal.task_id) for signal in signals if signal.task_id}
    members = state.members(plan)
    store_returned = not state.store_up
    if store_returned:
        state = restart_deadlines(state, now)
    lease_until = now + plan.schedule.lease_s
    renewed = []
    for task in state.tasks.values():
        site = members[task.client_id].site
        in_training = (site, task.task_id) in named
        if store_returned or in_training or (site in busy_sites and not task.parked):
            parked = task.parked and not in_training
            renewed.append(replace(task, lease_until=lease_until, parked=parked))
    state = state.with_tasks(renewed)
    for each in state.evaluations.values():
        site = members[each.client_id].site
        if store_returned or (site, each.task_id) in named or site in busy_sites:
            state = state.with_evaluation(replace(each, lease_until=lease_until))
    awake = Counter(signal.site for signal in signals if not signal.resting)
    resting = Counter(signal.site for signal in signals if signal.resting)
    wishes = {(signal.site, client) for signal in signals for client in signal.wishes}
    return replace(
        state,
        workers_by_site=_same_or_new(state.workers_by_site, dict(awake)),
        resting_by_site=_same_or_new(state.resting_by_site, dict(resting)),
        seen_at=MappingProxyType({**state.seen_at, **dict.fromkeys(awake, now)}),
        wishes=frozenset(c for site, c in wishes if c in members and members[c].site == site),
        store_up=True,
    )


def _same_or_new(known: Mapping[str, int], new: dict[str, int]) -> Mapping[str, int]:
    """Return the known mapping if the new one is equal, so that the index sees no change."""
    return known if known == new else MappingProxyType(new)


def reissue_expired(
    plan: Plan, state: CoordinatorState, now: float, *, issue: bool = True
) -> Transition:
    """Issue tasks again whose lease or deadline is over, or park them if their site is silent.

    A site that rests outside its hours is not silent, but takes no task either. Without `issue`,
    tasks of live sites wait.
    """
    state, actions = with_index(plan, state), list[Action]()
    if not _needs_attention(state, now):
        return Transition(state)
    members = state.members(plan)
    for task in tuple(state.tasks.values()):
        site = members[task.client_id].site
        alive = site in state.workers_by_site
        late = now - task.issued_at >= plan.schedule.task_deadline_s
        if now < task.lease_until and not late and not (task.parked and alive):
            continue
        if not alive:
            if not task.parked:
                state = state.with_task(replace(task, parked=True))
                reason = "rests" if site in state.resting_by_site else "is silent"
                actions.append(_lease_event(task, f"waits for site {site}, which {reason}"))
            continue
        if not issue:
            continue
        again = replace(
            task,
            bases=(*task.bases, state.version),
            issued_at=now,
            lease_until=now + plan.schedule.lease_s,
            parked=False,
        )
        state = state.with_task(again)
        text = f"is issued again, attempt {again.attempt}"
        actions += [IssueTask(again, site), _lease_event(again, text)]
    return Transition(_look_again_later(plan, state), tuple(actions))


def _needs_attention(state: CoordinatorState, now: float) -> bool:
    """Return whether a lease or a deadline may be over, or the site of a parked task is back."""
    index = state.index
    assert index is not None
    alive = state.workers_by_site
    return now >= index.attention_at or any(site in alive for site in index.parked)


def _look_again_later(plan: Plan, state: CoordinatorState) -> CoordinatorState:
    index = index_of(plan, state)
    times = (expires_at(plan, task) for task in state.tasks.values() if not task.parked)
    return state.with_index(replace(index, attention_at=min(times, default=math.inf)))


def _lease_event(task: OpenTask, text: str) -> LogEvent:
    return log_event(
        "warning",
        EventKind.LEASE,
        f"task {task.task_id} of {task.client_id} {text}",
        task=task.task_id,
        client=task.client_id,
    )
