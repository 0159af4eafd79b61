"""Minimum of live clients: below it nothing is issued or committed.

With a minimum above 1, no version is made of a single client's updates either, as it would show
them to the others; except for K = 1, where every version is one update. A minimum of 1 has no
effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from common.protocol.kinds import EventKind
from coordinator.core.events import LogEvent, log_event
from coordinator.core.state import CoordinatorState, Plan
from coordinator.core.transition import Transition


def minimum(plan: Plan, state: CoordinatorState) -> int:
    """Return the number of live clients that the run needs: the operator's, else the plan's."""
    return state.min_clients or plan.min_clients


def site_is_live(plan: Plan, state: CoordinatorState, site: str, now: float) -> bool:
    """Return whether a worker of a site sent a heartbeat within `schedule.lease_s`.

    While the store is out of reach, it is who was there before, because nothing newer is known.
    """
    if not state.store_up:
        return site in state.workers_by_site
    seen_at = state.seen_at.get(site)
    return seen_at is not None and now - seen_at <= plan.schedule.lease_s


def trainable_clients(plan: Plan, state: CoordinatorState, phase: int) -> Iterator[str]:
    """Yield the members that have rows for a phase and are not quarantined, in order."""
    kind = plan.phases[phase].kind
    for name, client in state.members(plan).items():
        if client.rows.get(kind) and not state.client(name).quarantined:
            yield name


def each_live_client(plan: Plan, state: CoordinatorState, now: float) -> Iterator[str]:
    """Yield the clients that can train in the current phase and whose site is live."""
    members = state.members(plan)
    for name in trainable_clients(plan, state, plan.current_phase(state.version)):
        if site_is_live(plan, state, members[name].site, now):
            yield name


def live_clients(plan: Plan, state: CoordinatorState, now: float) -> list[str]:
    """Return the clients that can train in the current phase and whose site is live."""
    return list(each_live_client(plan, state, now))


def at_least(plan: Plan, state: CoordinatorState, now: float, number: int) -> bool:
    """Return whether that many clients are live; it stops to look when they are found."""
    found = islice(each_live_client(plan, state, now), number)
    return sum(1 for _ in found) >= number


def enough_clients(plan: Plan, state: CoordinatorState, now: float) -> bool:
    """Return whether anything may be issued or committed."""
    needed = minimum(plan, state)
    return needed <= 1 or at_least(plan, state, now, needed)


def sole_contributor(plan: Plan, state: CoordinatorState) -> str | None:
    """Return the client of all buffered updates, if a version also needs those of another one."""
    clients = {update.client_id for update in state.buffer}
    alone = len(clients) == 1 and plan.schedule.buffer > 1 and minimum(plan, state) > 1
    return clients.pop() if alone else None


def report_shortage(plan: Plan, state: CoordinatorState, now: float) -> Transition:
    """Add an entry to the feed if the live clients fell below the minimum or reached it again."""
    short = not enough_clients(plan, state, now)
    if short == state.short:
        return Transition(state)
    return Transition(replace(state, short=short), (_shortage_event(plan, state, now, short),))


def _shortage_event(plan: Plan, state: CoordinatorState, now: float, short: bool) -> LogEvent:
    live, needed = live_clients(plan, state, now), minimum(plan, state)
    if not short:
        text = f"{_count(live)} live again, of at least {needed}: the run goes on"
        return log_event("info", EventKind.WORKERS, text, live=len(live), minimum=needed)
    text = (
        f"{_count(live)} live, of at least {needed}: nothing is issued or committed;"
        f" {describe_missing(plan, state, now)}"
    )
    return log_event("warning", EventKind.WORKERS, text, live=len(live), minimum=needed)


def describe_missing(plan: Plan, state: CoordinatorState, now: float) -> str:
    """Return which clients have joined and are not live, as a clause."""
    live = set(live_clients(plan, state, now))
    trainable = trainable_clients(plan, state, plan.current_phase(state.version))
    missing = [name for name in trainable if name not in live]
    if missing:
        return f"missing: {', '.join(missing)}"
    return "no client has joined yet" if not live else "no other client has joined"


def _count(clients: Sequence[str]) -> str:
    return f"{len(clients)} {'client is' if len(clients) == 1 else 'clients are'}"
