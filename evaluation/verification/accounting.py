"""Accounting of a run: each accepted update is in one version, with the weight that it must have.

Weights are computed again by the coordinator's own functions, from the recorded losses, counts,
norms and scores. No tensor is read.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

from common.protocol.versions import UpdateSummary, VersionSummary
from common.run_directory.update_journal import JournaledUpdate, UpdateJournal
from coordinator.aggregation.clip import clip_factor, clip_limit
from coordinator.aggregation.coefficients import compute_parts
from coordinator.core.events import CommitPart, CommitVersion
from coordinator.core.index_update import with_index
from coordinator.core.state import BufferedUpdate, CoordinatorState, Plan
from coordinator.core.state_changes import accept_update, apply_commit
from coordinator.storage.run import build_plan

TOLERANCE = 1e-12
"""Relative difference: a coordinator that was restarted may add up clients in another order."""
_SAME = ("task_id", "client_id", "worker_id", "base_version", "stats", "nbytes")
_FACTORS = ("score", "weight", "staleness_factor", "participation_factor", "coefficient")


def check_run(journal: UpdateJournal) -> Iterator[str]:
    """Yield what is wrong with the run as a whole."""
    numbers = set(journal.versions)
    for before, number in pairwise([-1, *sorted(numbers)]):  # a damaged number may be huge
        if number > before + 1:
            to = f" to {number - 1}" if number > before + 2 else ""
            yield f"the journal has no version {before + 1}{to}"
    accepted = {update.task_id for update in journal.updates}
    for update in journal.updates:
        if journal.receipts.get(update.task_id) != "accepted":
            yield f"the accepted update {_name(update)} has no receipt that says so"
        if update.version is not None and update.version not in numbers:
            yield f"update {_name(update)} is in version {update.version}, which does not exist"
    for task, state in journal.receipts.items():
        if state == "accepted" and task not in accepted:
            yield f"{task} has a receipt that says accepted, but no update was"


def check_versions(journal: UpdateJournal) -> dict[int, list[str]]:
    """Return what is wrong with each version of the journal."""
    plan = build_plan(journal.config, journal.rows)
    seen, marked = Counter[str](), defaultdict[int | None, list[JournaledUpdate]](list)
    for update in journal.updates:
        marked[update.version].append(update)
    state, problems = CoordinatorState(), dict[int, list[str]]()
    for number, summary in sorted(journal.versions.items()):
        updates = marked[number]
        found = [*_check_content(number, summary, updates, seen)]
        if number and updates:
            state = replace(state, version=number - 1)
            state, wrong = _replay(plan, journal, state, summary, updates)
            found += wrong
        problems[number] = found
    return problems


def _check_content(
    number: int, summary: VersionSummary, updates: list[JournaledUpdate], seen: Counter[str]
) -> Iterator[str]:
    """Compare the summary of a version with the accepted updates that are marked with it."""
    if summary.version != number:
        yield f"its row holds version {summary.version}"
    if number and not summary.updates:
        yield "it has no update"
    marked = {update.task_id: update for update in updates}
    listed = [update.task_id for update in summary.updates]
    for task in dict.fromkeys(listed):
        if seen[task] or listed.count(task) > 1:
            yield f"the update of {task} is applied twice"
        seen[task] += 1
        if task not in marked:
            yield f"the update of {task} is not marked as applied here"
    yield from (f"the update of {task} is lost" for task in marked.keys() - set(listed))
    for update in summary.updates:
        own = marked.get(update.task_id)
        differing = [n for n in _SAME if own and getattr(own, n) != getattr(update, n)]
        yield from (f"{name} of {update.task_id} differs from its row" for name in differing)


def _replay(
    plan: Plan,
    journal: UpdateJournal,
    state: CoordinatorState,
    summary: VersionSummary,
    updates: list[JournaledUpdate],
) -> tuple[CoordinatorState, list[str]]:
    """Accept and commit a version's updates; return the new state, and what was not recorded so."""
    wrong = [
        f"the base version {u.base_version} of {u.task_id} is newer than version {state.version}"
        for u in updates
        if u.base_version > state.version
    ]
    if wrong:  # nothing can be computed from it
        return state, wrong
    for update in updates:
        clip = _clip(plan, state, update)
        if not _close(clip, update.clip):
            wrong.append(f"clip of {update.task_id} is {update.clip!r} instead of {clip!r}")
        state = accept_update(state, _buffered(update), update.norm, 0.0)
    scores = {u.task_id: journal.scores[u.task_id] for u in updates if u.task_id in journal.scores}
    state = replace(state, scores=MappingProxyType(scores))
    state = with_index(plan, state)
    parts = compute_parts(plan, state)
    recorded = {update.task_id: update for update in summary.updates}
    for part in parts:
        if part.update.task_id in recorded:
            wrong += _differences(part, recorded[part.update.task_id])
    for update in updates:
        if update.task_id in scores:
            client = replace(state.client(update.client_id), last_score=scores[update.task_id])
            state = state.with_client(update.client_id, client)
    return apply_commit(plan, state, CommitVersion(summary.version, summary.phase, parts)), wrong


def _clip(plan: Plan, state: CoordinatorState, update: JournaledUpdate) -> float:
    limit = clip_limit(state.norms, plan.aggregation, plan.privacy)
    return 1.0 if limit is None else clip_factor(update.norm, limit)


def _differences(part: CommitPart, recorded: UpdateSummary) -> Iterator[str]:
    for name in _FACTORS:
        expected, found = getattr(part, name), getattr(recorded, name)
        if not _close(expected, found):
            yield f"{name} of {recorded.task_id} is {found!r} instead of {expected!r}"
    if part.staleness != recorded.staleness:
        yield f"staleness of {recorded.task_id} is {recorded.staleness}, not {part.staleness}"


def _buffered(update: JournaledUpdate) -> BufferedUpdate:
    return BufferedUpdate(
        task_id=update.task_id,
        attempt=update.attempt,
        client_id=update.client_id,
        worker_id=update.worker_id,
        base_version=update.base_version,
        stats=update.stats,
        clip=update.clip,
        nbytes=update.nbytes,
        upload=update.upload,
    )


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE)


def _name(update: JournaledUpdate) -> str:
    return f"{update.task_id}.{update.attempt}"
