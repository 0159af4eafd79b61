"""Whether an update counts, decided before anything of it is journaled as accepted.

Two steps: `check_tensors` looks at the tensors against the manifest of the base version, `decide` at the
claims against plan and state. Both are pure. After `worker` and `broker`, before `contribution` on
an update's way; `coordinator/ingest/ingest.py` calls the first, `coordinator/core/machine.py` the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from common.protocol.tensors import Tensors
from coordinator.core.events import EnrolmentRequested, UpdateArrived
from coordinator.core.state import Client, CoordinatorState, OpenTask, Plan

MIN_NORMS = 5  # accepted updates before the running median means anything
MAX_NORM = 1e4  # until then; far over any training, far under what overflows a version


@dataclass(frozen=True)
class AdmissionDecision:
    """The outcome: `reason` empty means accepted, with the factor that clips its norm.

    `binding` tells whether a rejection settles the task. A message from a site that may not speak
    for the client settles nothing, or anybody could cancel anybody's work.
    """

    reason: str = ""
    binding: bool = True
    clip: float = 1.0
    strikes: bool = True
    """Whether a rejection counts against the client; being slow does not."""


def check_tensors(tensors: Tensors, manifest: Mapping[str, tuple[int, ...]]) -> tuple[float, str]:
    """The L2 norm over all tensors, and what is wrong with them ("" if nothing).

    Args:
        tensors: The decoded delta.
        manifest: Name → shape that the coordinator's own adapter has.
    """
    if problem := _names(tensors, manifest):
        return 0.0, problem
    for name, tensor in tensors.items():
        if tensor.shape != manifest[name]:
            return 0.0, f"tensor {name} has shape {tensor.shape}, not {manifest[name]}"
    squares = sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values())
    if not math.isfinite(squares):
        return 0.0, "the update holds values that are not finite"
    return math.sqrt(squares), ""


def decide(plan: Plan, state: CoordinatorState, update: UpdateArrived) -> AdmissionDecision:
    """Whether an update is accepted: claims first, then tensors, then norm."""
    client = state.members(plan).get(update.client_id)
    task = state.tasks.get(update.task_id)
    if stranger := _stranger(client, task, update):
        return AdmissionDecision(stranger, binding=False)
    assert client is not None and task is not None  # strangers are gone
    reason = _attempt(task, update) or _implausible(update) or update.problem
    if reason:
        return AdmissionDecision(reason)
    if stale := _stale(plan, state, update):
        return AdmissionDecision(stale, strikes=False)
    return _norm(plan, state, update)


def check_enrolment(plan: Plan, state: CoordinatorState, event: EnrolmentRequested) -> str:
    """Why a client of an invited site may not take part; empty if it may.

    Its rows are a claim, like its losses: the invitation bounds them, and with them its weight.
    """
    client, site = event.client_id, event.site
    if client != site and not client.startswith(f"{site}."):
        return f"site {site} may not speak for {client}: its clients are {site} or {site}.NAME"
    if client in plan.clients:
        return f"{client} is a client of this run already"
    others = [c for c in state.joined.values() if c.site == site and c.client_id != client]
    if len(others) >= event.max_clients:
        return f"site {site} was invited with {event.max_clients} clients, and has as many"
    if not any(event.rows.get(kind) for kind in plan.kinds):
        return f"{client} has no training rows of the kinds that this run learns from"
    return ""


def _names(tensors: Tensors, manifest: Mapping[str, tuple[int, ...]]) -> str:
    if missing := sorted(manifest.keys() - tensors.keys()):
        return f"tensor {missing[0]} is missing ({len(missing)} of {len(manifest)})"
    if foreign := sorted(tensors.keys() - manifest.keys()):
        return f"{len(foreign)} tensors are not of this adapter"
    return ""


def _stranger(client: Client | None, task: OpenTask | None, update: UpdateArrived) -> str:
    if client is None:
        return f"unknown client {update.client_id}"
    if client.site != update.site:
        return f"site {update.site} may not speak for {update.client_id}"
    if task is None:
        return f"task {update.task_id} was never issued"
    if task.client_id != update.client_id:
        return f"task {update.task_id} was issued to another client"
    return ""


def _attempt(task: OpenTask, update: UpdateArrived) -> str:
    if update.phase != task.phase:
        return f"phase {update.phase}, the task is of phase {task.phase}"
    if update.attempt > task.attempt:
        return f"attempt {update.attempt} was never issued"
    if update.base_version != task.bases[update.attempt - 1]:
        issued = task.bases[update.attempt - 1]
        return f"base version {update.base_version}, attempt {update.attempt} had {issued}"
    return ""


def _stale(plan: Plan, state: CoordinatorState, update: UpdateArrived) -> str:
    staleness = state.version - update.base_version
    limit = plan.schedule.max_staleness
    return f"staleness {staleness} is over the limit of {limit}" if staleness > limit else ""


def _implausible(update: UpdateArrived) -> str:
    # Losses are finite and positive by the record's own rules; n is capped, not judged (core).
    stats = update.stats
    if stats.num_samples == 0 or stats.steps == 0 or stats.num_tokens == 0:
        return "statistics claim no samples, no tokens or no steps"
    return ""


def _norm(plan: Plan, state: CoordinatorState, update: UpdateArrived) -> AdmissionDecision:
    usual = median(state.norms) if len(state.norms) >= MIN_NORMS else 0.0
    if not usual:  # too few, or all of them zero: nothing to compare with
        bad = f"update norm {update.norm:.3g} is over the bound of {MAX_NORM:.3g}"
        return AdmissionDecision(bad if update.norm > MAX_NORM else "")
    limit = plan.aggregation.clip * usual
    if update.norm <= limit:
        return AdmissionDecision()
    if plan.aggregation.over_norm == "reject":
        return AdmissionDecision(f"update norm {update.norm:.3g} is over the bound of {limit:.3g}")
    return AdmissionDecision(clip=limit / update.norm)
