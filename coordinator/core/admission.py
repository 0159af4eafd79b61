"""Admission: the decision whether an update counts, before anything is journaled as accepted.

Both functions are pure. `check_tensors` inspects the tensors, which `coordinator/ingest/ingest.py`
has decoded by the layout of the run's adapter. `decide` compares the update's claims with plan and
state; `coordinator/core/machine.py` calls it. An accepted update waits in the buffer for
`coordinator/core/schedule.py`, the next file on its path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from common.protocol.kinds import RejectionKind
from common.protocol.tensors import Tensors
from coordinator.aggregation.clip import MAX_NORM, clip_factor, clip_limit, norm_limit
from coordinator.core.events import Rejection, UpdateArrived
from coordinator.core.state import Client, CoordinatorState, OpenTask, Plan


@dataclass(frozen=True)
class AdmissionDecision:
    """Outcome of admission: the update is accepted unless there is a rejection.

    A rejection usually closes the task. That of a message from a site that may not speak for the
    client closes nothing, or anybody could cancel anybody's work.
    """

    rejection: Rejection | None = None
    closes_task: bool = True
    counts_as_strike: bool = True  # against the client; being slow does not
    clip: float = 1.0  # cᵢ, the factor that bounds the update's norm


def check_tensors(tensors: Tensors) -> tuple[float, Rejection | None]:
    """Return the L2 norm over all tensors of a delta, and a rejection if it is not finite."""
    squares = sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values())
    if not math.isfinite(squares):
        problem = "the update holds values that are not finite"
        return 0.0, Rejection(RejectionKind.NOT_FINITE, problem)
    return math.sqrt(squares), None


def decide(plan: Plan, state: CoordinatorState, update: UpdateArrived) -> AdmissionDecision:
    """Check the sender of an update first, then its claims, its tensors and its norm."""
    client = state.members(plan).get(update.client_id)
    task = state.tasks.get(update.task_id)
    if problem := _check_sender(client, task, update):
        return AdmissionDecision(Rejection(RejectionKind.IDENTITY, problem), closes_task=False)
    assert client is not None and task is not None  # checked with the sender
    if problem := _check_attempt(task, update):
        return AdmissionDecision(Rejection(RejectionKind.ATTEMPT, problem))
    if not plan.rows(client, task.phase):  # it has enrolled again meanwhile, with other rows
        problem = f"{client.client_id} has no rows of this phase any more"
        return AdmissionDecision(
            Rejection(RejectionKind.STATISTICS, problem), counts_as_strike=False
        )
    if problem := _check_statistics(update, plan.aggregation.contribution_source):
        return AdmissionDecision(Rejection(RejectionKind.STATISTICS, problem))
    if update.problem is not None:
        return AdmissionDecision(update.problem)
    staleness, limit = state.version - update.base_version, plan.schedule.max_staleness
    if staleness > limit:
        problem = f"staleness {staleness} is over the limit of {limit}"
        return AdmissionDecision(Rejection(RejectionKind.STALE, problem), counts_as_strike=False)
    return _bound_norm(plan, state, update)


def _check_sender(client: Client | None, task: OpenTask | None, update: UpdateArrived) -> str:
    if client is None:
        return f"unknown client {update.client_id}"
    if client.site != update.site:
        return f"site {update.site} may not speak for {update.client_id}"
    if task is None:
        return f"task {update.task_id} was never issued"
    if task.client_id != update.client_id:
        return f"task {update.task_id} was issued to another client"
    return ""


def _check_attempt(task: OpenTask, update: UpdateArrived) -> str:
    if update.phase != task.phase:
        return f"the update is of phase {update.phase}, the task of phase {task.phase}"
    if update.attempt > task.attempt:
        return f"attempt {update.attempt} was never issued"
    issued = task.bases[update.attempt - 1]
    if update.base_version != issued:
        return f"base version {update.base_version}, but attempt {update.attempt} had {issued}"
    return ""


def _check_statistics(update: UpdateArrived, source: str) -> str:
    # Losses are finite and positive by the record's own rules; the row count is capped later.
    stats = update.stats
    if stats.num_samples == 0 or stats.steps == 0 or stats.num_tokens == 0:
        return "the statistics claim no samples, no tokens or no steps"
    if source == "holdout" and stats.loss_after is None:
        return "the statistics lack the holdout loss, from which contributions are computed"
    return ""


def _bound_norm(plan: Plan, state: CoordinatorState, update: UpdateArrived) -> AdmissionDecision:
    limit = clip_limit(state.norms, plan.aggregation, plan.privacy)
    if limit is not None:
        return AdmissionDecision(clip=clip_factor(update.norm, limit))
    bound = norm_limit(state.norms, plan.aggregation.clip) or MAX_NORM
    if update.norm > bound:
        problem = f"update norm {update.norm:.3g} is over the bound of {bound:.3g}"
        return AdmissionDecision(Rejection(RejectionKind.NORM, problem))
    return AdmissionDecision()
