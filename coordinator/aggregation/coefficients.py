"""Coefficients of the step θ_{t+1} = θ_t + η Σ wᵢ s(τᵢ) rᵢ cᵢ Δᵢ.

This is the one place that puts the factors together:

    η   server learning rate            `aggregation.server_lr`
    wᵢ  contribution weight, Σ wᵢ = 1   `coordinator/aggregation/contribution.py`
    s   staleness factor                `coordinator/aggregation/staleness.py`
    rᵢ  participation factor            `coordinator/aggregation/participation.py`
    cᵢ  norm clip                       `coordinator/aggregation/clip.py`

The staleness factors are not renormalised, so a buffer of stale updates takes a smaller step.
`coordinator/core/schedule.py` decides when a step is due and calls `compute_parts`. Next on an
update's path, `coordinator/storage/commit.py` adds the deltas.
"""

from __future__ import annotations

from collections import Counter

from common.config.config import AggregationConfig
from common.protocol.updates import ContributionStats
from coordinator.aggregation.contribution import contribution_weights, single_client_weight
from coordinator.aggregation.participation import (
    effective_participation,
    participation_factor,
    relative_steps,
)
from coordinator.aggregation.staleness import staleness_factor
from coordinator.core.events import CommitPart
from coordinator.core.index_update import index_of
from coordinator.core.state import CoordinatorState, Plan


def server_rate(config: AggregationConfig) -> float:
    """Return η where it is a factor of the deltas: 1 where a server optimizer applies it."""
    return config.server_lr if config.optimizer.name == "none" else 1.0


def compute_parts(plan: Plan, state: CoordinatorState) -> tuple[CommitPart, ...]:
    """Return the share of every buffered update in the next version.

    A client's score is that of its newest update; its weight is divided equally among all of them.
    """
    config = plan.aggregation
    buffered = Counter(update.client_id for update in state.buffer)
    weights = _client_weights(plan, state)
    index = index_of(plan, state)
    totals = (index.participants, index.participation)
    participation, mean = effective_participation(state.clients, buffered, *totals)
    eta = server_rate(config)
    shares = [weights[u.client_id][1] / buffered[u.client_id] for u in state.buffer]
    work = [1.0] * len(shares)
    if plan.schedule.adaptive_steps is not None:
        work = relative_steps([update.stats.steps for update in state.buffer], shares)
    parts = []
    for update, w, steps in zip(state.buffer, shares, work, strict=True):
        score, _ = weights[update.client_id]
        staleness = state.version - update.base_version
        s, r = 1.0, 1.0
        if not config.cache_updates:  # which holds what late and idle clients sent last
            s = staleness_factor(
                *(staleness, config.staleness_exponent),
                *(config.staleness, config.staleness_threshold),
            )
            own = participation[update.client_id] * steps
            r = 1.0 if plan.privacy.enabled else participation_factor(own, mean)
        coefficient = w * s * r * update.clip * eta
        parts.append(CommitPart(update, staleness, score, w, s, r, coefficient))
    return tuple(parts)


def _client_weights(plan: Plan, state: CoordinatorState) -> dict[str, tuple[float, float]]:
    """Return score and weight of each client in the buffer.

    With differential privacy all weights are 1/K, whatever the others claim and however many they
    are: `coordinator/aggregation/rules/private.py`.
    """
    if plan.privacy.enabled:
        return {update.client_id: (1.0, 1 / plan.schedule.buffer) for update in state.buffer}
    newest: dict[str, ContributionStats] = {u.client_id: u.stats for u in state.buffer}
    measured = _measured(state)
    if len(newest) > 1:
        return contribution_weights(newest, plan.aggregation, measured)
    (client,) = newest
    known = {name: c.last_stats for name, c in state.clients.items() if c.last_stats is not None}
    last = {name: c.last_score for name, c in state.clients.items() if c.last_score is not None}
    if client not in measured:  # its last score is that of another update
        last.pop(client, None)
    return {client: single_client_weight(client, known | newest, plan.aggregation, last | measured)}


def _measured(state: CoordinatorState) -> dict[str, float]:
    """Return the score of each client's newest buffered update, if it has one."""
    newest = {update.client_id: update.task_id for update in state.buffer}
    return {client: state.scores[task] for client, task in newest.items() if task in state.scores}
