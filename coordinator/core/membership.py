"""Membership: clients of invited sites join a running federation, and revoked sites leave it."""

from __future__ import annotations

from types import MappingProxyType

from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core.evaluations import close_evaluations_of
from coordinator.core.events import (
    AdmitClient,
    CloseTask,
    DismissClient,
    EnrolmentRequested,
    Rejection,
    SiteRevoked,
    log_event,
)
from coordinator.core.state import Client, CoordinatorState, Plan
from coordinator.core.transition import Transition


def enrol(plan: Plan, state: CoordinatorState, event: EnrolmentRequested) -> Transition:
    """Admit a client of an invited site, or dismiss it with a reason.

    A client enrols again until it has seen the answer, and when its rows have changed.
    """
    if reason := _check_enrolment(plan, state, event):
        text = f"client {event.client_id} of site {event.site} may not join: {reason}"
        dismissal = DismissClient(event.client_id, event.site, reason, nonce=event.nonce)
        return Transition(state, (dismissal, log_event("warning", EventKind.JOIN, text)))
    # The rows are a claim, like the losses. The invitation bounds them, and with them the weight.
    rows = {kind: min(event.rows.get(kind, 0), event.max_rows) for kind in plan.kinds}
    client = Client(
        event.client_id, event.site, MappingProxyType(rows), shares_updates=event.shares_updates
    )
    known = state.joined.get(event.client_id)
    admitted = Transition(state.with_member(client), (AdmitClient(client, event.nonce),))
    if known == client:
        return admitted
    counts = ", ".join(f"{count} {kind}" for kind, count in rows.items() if count)
    verb = "joins" if known is None else "comes back"
    text = f"{client.client_id} of site {client.site} {verb} with {counts} rows"
    return admitted.then(log_event("info", EventKind.JOIN, text, client=client.client_id))


def _check_enrolment(plan: Plan, state: CoordinatorState, event: EnrolmentRequested) -> str:
    client, site = event.client_id, event.site
    if client != site and not client.startswith(f"{site}."):
        return f"site {site} may not speak for {client}: its clients are {site} or {site}.NAME"
    if client in plan.clients:
        return f"{client} is a client of this run already"
    others = [c for c in state.joined.values() if c.site == site and c.client_id != client]
    if len(others) >= event.max_clients:
        return (
            f"the invitation of site {site} allows {event.max_clients} clients, and all have joined"
        )
    if not any(event.rows.get(kind) for kind in plan.kinds):
        return f"{client} has no training rows of the kinds that this run learns from"
    return ""


def revoke_site(state: CoordinatorState, event: SiteRevoked) -> Transition:
    """Remove a site's clients and close what they were to do; accepted updates still count."""
    after = Transition(state)
    reason = f"site {event.site} was revoked"
    for client in [c for c in state.joined.values() if c.site == event.site]:
        for task in state.tasks.values():
            if task.client_id == client.client_id:
                rejection = Rejection(RejectionKind.REVOKED, reason)
                close = CloseTask(task.task_id, task.client_id, rejection)
                after = after.then(close, state=after.state.without_task(task.task_id))
        rejection = Rejection(RejectionKind.REVOKED, reason)
        closed = close_evaluations_of(after.state, client.client_id, rejection)
        after = after.then(*closed.actions, state=closed.state)
        dismissal = DismissClient(client.client_id, client.site, reason, left=True)
        after = after.then(dismissal, state=after.state.without_member(client.client_id))
    return after.then(log_event("warning", EventKind.REVOKED, reason))
