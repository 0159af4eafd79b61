"""Differential privacy in the schedule: how often a client takes part.

The guarantee of `common/privacy.py` needs that a version has at most one update of a client, so a
client whose update waits in the buffer gets no task. One that has reached `privacy.max_versions`
gets no more tasks at all. What was applied is in the journal, so a restart forgets nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from common.privacy import PrivacySpending, spending_of
from coordinator.core.minimum import sole_contributor, trainable_clients
from coordinator.core.state import CoordinatorState, Plan


def is_barred(plan: Plan, state: CoordinatorState) -> Callable[[str], bool]:
    """Return a function that tells whether a client without an open task may get none."""
    if not plan.privacy.enabled:
        return lambda client: False
    buffered = {update.client_id for update in state.buffer}
    return lambda client: (
        client in buffered or not _has_budget(plan, state.client(client).participation)
    )


def spent_clients(plan: Plan, state: CoordinatorState) -> list[str]:
    """Return the members that have reached the cap, an update in the buffer included."""
    if not plan.privacy.enabled or plan.privacy.max_versions is None:
        return []
    waiting = {update.client_id for update in state.buffer}
    return [
        name
        for name in state.members(plan)
        if not _has_budget(plan, state.client(name).participation + (name in waiting))
    ]


def is_exhausted(plan: Plan, state: CoordinatorState) -> bool:
    """Return whether no client can contribute to the next version, unless others join."""
    if plan.privacy.max_versions is None or state.tasks or state.version >= plan.total_versions:
        return False
    clients = trainable_clients(plan, state, plan.current_phase(state.version))
    spent = set(spent_clients(plan, state))
    left = [client for client in clients if client not in spent]
    # The update of a last client may wait for that of another one.
    return bool(clients) and left in ([], [sole_contributor(plan, state)])


def exhaustion(plan: Plan) -> str:
    """Return the reason for which such a run ends."""
    count = plan.privacy.max_versions
    versions = "1 version" if count == 1 else f"{count} versions"
    return f"the privacy of every client is spent: each is in {versions} (privacy.max_versions)"


def current_spending(plan: Plan, state: CoordinatorState) -> PrivacySpending | None:
    """Return the privacy of the most exposed client; None without differential privacy."""
    most = max((client.participation for client in state.clients.values()), default=0)
    return spending_of(plan.privacy, most, plan.total_versions - state.version)


def _has_budget(plan: Plan, versions: int) -> bool:
    return plan.privacy.max_versions is None or versions < plan.privacy.max_versions
