"""Rows of the store's tables, computed from the coordinator's state.

Pure. `coordinator/publish/store_publisher.py` writes them, `common/store/view.py` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from broker.protocol import QueueDepth
from common.clock import format_time
from common.evaluation.rows import EvaluationRow, evaluation_rows
from common.protocol.evaluations import EvaluatorFigures
from common.protocol.membership import Membership
from common.protocol.versions import SampleAnswer, VersionSummary
from common.protocol.wire import pack
from common.store.view import ClientRow, QueueRow, RunInfo, RunStatus, ScoreCost
from coordinator.core.events import (
    AcceptEvaluation,
    Action,
    AdmitClient,
    CloseRound,
    DismissClient,
    IssueEvaluation,
    OpenRound,
)
from coordinator.core.minimum import (
    enough_clients,
    live_clients,
    minimum,
    site_is_live,
    sole_contributor,
)
from coordinator.core.privacy import current_spending, spent_clients
from coordinator.core.scores import backlog, backlog_limit
from coordinator.core.state import Client, CoordinatorState, Plan
from coordinator.storage.run import Run

MAX_NAMED = 4  # silent clients in the detail of a run that waits


def run_info(run: Run, state: CoordinatorState, started_at: float, now: float) -> RunInfo:
    """Return the status of the run; `started_at` is the start of this coordinator."""
    plan = run.plan
    members = state.members(plan)
    served = sum(client.site in state.workers_by_site for client in members.values())
    enough = enough_clients(plan, state, now)
    counts = run.journal.receipt_counts()
    scored, seconds, nbytes = run.journal.score_cost()
    info = RunInfo(
        run=run.run_id,
        name=run.name,
        status=_run_status(state, bool(served) and enough),
        detail=_missing(plan, state, now) or _detail(plan, state, served, len(members)),
        version=state.version,
        total_versions=plan.total_versions,
        phase=min(plan.phase_of(state.version), len(plan.phases) - 1),
        phases=tuple(phase.objective for phase in plan.phases),
        phase_ends=tuple(plan.phase_end(phase) for phase in range(len(plan.phases))),
        clients=len(members),
        buffered=len(state.buffer),
        buffer_size=plan.schedule.buffer,
        open_tasks=len(state.tasks),
        accepted=counts.get("accepted", 0),
        rejected=counts.get("rejected", 0),
        started_at=started_at,
        updated_at=now,
        max_staleness=plan.schedule.max_staleness,
        software=run.software,
    )
    if run.template.layout is None:  # schema 1: workers of earlier releases read this
        return info
    return info.model_copy(
        update={
            "min_clients": minimum(plan, state),
            "live_clients": len(live_clients(plan, state, now)),
            "open_evaluations": len(state.evaluations),
            "contribution_source": plan.aggregation.contribution_source,
            "scores": ScoreCost(updates=scored, seconds=seconds, nbytes=nbytes),
            "privacy": current_spending(plan, state),
        }
    )


def _missing(plan: Plan, state: CoordinatorState, now: float) -> str:
    """Return for whom a run below its minimum of clients waits; empty for one that does not."""
    if enough_clients(plan, state, now):
        return ""
    members, live = state.members(plan), live_clients(plan, state, now)
    least = minimum(plan, state)
    silent = [c for c in members.values() if not site_is_live(plan, state, c.site, now)]
    parts = [_silence(client, state) for client in silent[:MAX_NAMED]]
    if len(silent) > MAX_NAMED:
        parts.append(f"{len(silent) - MAX_NAMED} more are silent")
    if len(members) < least:
        parts.append(f"{least - len(members)} yet to join")
    lacking = least - len(live)
    text = f"waiting for {lacking} {'client' if lacking == 1 else 'clients'}"
    return f"{text}: {', '.join(parts)}" if parts else text


def _silence(client: Client, state: CoordinatorState) -> str:
    seen = state.seen_at.get(client.site)
    if seen is None:
        return f"{client.client_id} has not been seen"
    return f"{client.client_id} is silent since {format_time(seen)}"


def _detail(plan: Plan, state: CoordinatorState, served: int, clients: int) -> str:
    text = f"{served} of {clients} clients served"
    alone = sole_contributor(plan, state)
    if alone is not None and len(state.buffer) >= plan.schedule.buffer:
        text += f", the next version waits for an update of another client than {alone}"
    waiting = backlog(plan, state)
    if waiting >= backlog_limit(plan):
        text += f", no new tasks: {waiting} updates wait for scores"
    if spent := spent_clients(plan, state):
        count = "1 client has" if len(spent) == 1 else f"{len(spent)} clients have"
        text += f", {count} reached the cap of privacy.max_versions"
    if resting := sum(state.resting_by_site.values()):
        text += f", {resting} {'worker rests' if resting == 1 else 'workers rest'}"
    return text if served else f"waiting for workers: {text}"


def _run_status(state: CoordinatorState, served: bool) -> RunStatus:
    if state.draining or state.stopping:
        return "draining"
    if state.paused:
        return "paused"
    return "running" if served else "waiting"


def client_rows(
    plan: Plan, state: CoordinatorState, newest: VersionSummary, now: float
) -> dict[str, bytes]:
    """Return the encoded row of each client, by client id."""
    weights = {update.client_id: update.weight for update in newest.updates}
    open_tasks = {task.client_id: task for task in state.tasks.values()}
    phase = min(plan.phase_of(state.version), len(plan.phases) - 1)
    rows = {}
    for client in state.members(plan).values():
        known, task = state.client(client.client_id), open_tasks.get(client.client_id)
        row = ClientRow(
            client_id=client.client_id,
            site=client.site,
            rows=plan.rows(client, phase),
            issued=known.issued,
            participation=known.participation,
            task_id=task.task_id if task else None,
            base_version=task.base_version if task else None,
            staleness=state.version - task.base_version if task else None,
            last_loss=known.last_stats.avg_loss if known.last_stats else None,
            weight=weights.get(client.client_id),
            quarantined=known.quarantined,
            seen_at=state.seen_at.get(client.site),
            live=site_is_live(plan, state, client.site, now),
            declines=client.client_id in state.declined,
        )
        rows[client.client_id] = pack(row)
    return rows


def changes_evaluations(actions: Sequence[Action]) -> bool:
    """Return whether a step changes the evaluations of versions, rather than scores of updates."""
    for action in actions:
        match action:
            case OpenRound() | CloseRound():
                return True
            case IssueEvaluation() | AcceptEvaluation():
                if not action.evaluation.candidate:
                    return True
    return False


def evaluations(run: Run) -> tuple[EvaluationRow, ...]:
    """Return the evaluations of versions at the sites, from the journal."""
    phases = run.plan.phases
    return evaluation_rows(
        run.journal.evaluations(phases),
        run.journal.evaluation_rounds(),
        [phase.kind for phase in phases],
    )


def evaluation_table(rows: Sequence[EvaluationRow]) -> dict[str, bytes]:
    """Return the rows as JSON, because those of many clients are larger than a record's limit."""
    return {f"{row.phase:04d}-{row.version:08d}": row.model_dump_json().encode() for row in rows}


def evaluator_table(figures: Sequence[EvaluatorFigures]) -> dict[str, bytes]:
    return {
        f"{each.version:08d}-{each.evaluator}": each.model_dump_json().encode() for each in figures
    }


def queue_rows(depths: Mapping[str, QueueDepth]) -> dict[str, bytes]:
    return {
        name: pack(QueueRow(queue=name, messages=depth.messages, consumers=depth.consumers))
        for name, depth in depths.items()
    }


def sample_rows(answers: Sequence[SampleAnswer]) -> dict[str, bytes]:
    return {str(number): pack(answer) for number, answer in enumerate(answers)}


def membership(action: AdmitClient | DismissClient) -> tuple[str, Membership]:
    """Return the site of a client, and the record of whether the client takes part."""
    if isinstance(action, AdmitClient):
        client = action.client
        record = Membership(client_id=client.client_id, state="member", nonce=action.nonce)
        return client.site, record
    state: Literal["left", "refused"] = "left" if action.left else "refused"
    record = Membership(
        client_id=action.client_id, state=state, nonce=action.nonce, reason=action.reason
    )
    return action.site, record
