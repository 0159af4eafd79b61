"""Texts of the event feed: actions as the terminal, `fccl status` and the journal show them."""

from __future__ import annotations

from collections.abc import Mapping

from common.protocol.evaluations import EvaluatorFigures
from common.protocol.feed import Event
from common.protocol.kinds import EventKind
from common.protocol.versions import VersionSummary
from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    CloseRound,
    CloseTask,
    CommitVersion,
    FinishRun,
    IssueTask,
    LogEvent,
    OpenRound,
    log_event,
)

MAX_NAMED = 4  # figures of an evaluator in the feed


def describe_figures(found: EvaluatorFigures) -> LogEvent:
    """Return the feed entry for figures of a plug-in evaluator, which names the first few."""
    named = [f"{key} {value:.4g}" for key, value in found.figures.items()]
    text = ", ".join([*named[:MAX_NAMED], *(["…"] if len(named) > MAX_NAMED else [])])
    return LogEvent(
        "info", EventKind.EVALUATOR, f"{found.evaluator} of version {found.version}: {text}"[:500]
    )


def describe(
    action: Action, version: int, summaries: Mapping[int, VersionSummary]
) -> LogEvent | None:
    """Return the feed entry for an action of a step, or None if it needs none.

    `version` is the newest version before the step, and `summaries` holds the step's own commits.
    """
    match action:
        case LogEvent():
            return action
        case IssueTask(task=task) if task.attempt == 1:
            text = f"{task.task_id} to {task.client_id} from version {task.base_version}"
            ids = {"task": task.task_id, "client": task.client_id}
            return log_event("info", EventKind.ISSUED, text, **ids)
        case AcceptUpdate():
            return _describe_accepted(action, version)
        case CloseTask(attempt=0):  # for the others, the machine adds an entry
            text = f"{action.task_id} of {action.client_id} closed: {action.rejection.reason}"
            ids = {"task": action.task_id, "client": action.client_id}
            return log_event("info", EventKind.CLOSED, text, **ids)
        case OpenRound():
            text = f"the clients evaluate version {action.version}"
            refs = {"version": action.version, "phase": action.phase}
            return log_event("info", EventKind.EVALUATION, text, **refs)
        case AcceptEvaluation(evaluation=evaluation) if not evaluation.candidate:
            return _describe_evaluation(action)
        case CloseRound():
            return _describe_round(action)
        case CommitVersion():
            return _describe_version(summaries[action.version])
        case FinishRun():
            kind = EventKind.FINISHED if action.complete else EventKind.STOPPED
            return log_event("info", kind, action.reason)
    return None


def to_event(entry: LogEvent, now: float) -> Event:
    """Return an entry as the record that the feed carries."""
    kind, refs = entry.kind.value, dict(entry.refs)
    return Event(at=now, level=entry.level, kind=kind, text=entry.text, refs=refs)


def _describe_accepted(action: AcceptUpdate, version: int) -> LogEvent:
    update, stats = action.update, action.update.stats
    text = (
        f"{update.client_id} from version {update.base_version}"
        f" (staleness {version - update.base_version}),"
        f" loss {stats.avg_loss:.3f}, {stats.steps} steps in {stats.train_seconds:.1f} s"
    )
    return log_event("info", EventKind.ACCEPTED, text, task=update.task_id, client=update.client_id)


def _describe_evaluation(action: AcceptEvaluation) -> LogEvent:
    result = action.result
    text = (
        f"{result.client_id} has evaluated version {result.version} on {result.sums.rows} rows"
        f" in {result.seconds:.1f} s"
    )
    return log_event(
        "info",
        EventKind.EVALUATION,
        text,
        version=result.version,
        task=result.task_id,
        client=result.client_id,
    )


def _describe_round(action: CloseRound) -> LogEvent:
    clients = "1 client has" if action.answered == 1 else f"{action.answered} clients have"
    text = f"{clients} evaluated version {action.version}"
    if action.missing:
        text += f"; without an answer: {', '.join(action.missing)}"
    refs = {"version": action.version, "phase": action.phase, "missing": len(action.missing)}
    return log_event("warning" if action.missing else "info", EventKind.EVALUATION, text, **refs)


def _describe_version(summary: VersionSummary) -> LogEvent:
    clients = ", ".join(
        f"{u.client_id} left out" if u.left_out else f"{u.client_id} {u.weight:.2f}"
        for u in summary.updates
    )
    text = (
        f"version {summary.version}: {len(summary.updates)} updates ({clients}),"
        f" train loss {summary.train_loss:.3f}"
    )
    if summary.holdout_before is not None and summary.holdout_after is not None:
        text += f", holdout {summary.holdout_before:.3f} to {summary.holdout_after:.3f}"
    return log_event("info", EventKind.VERSION, text, version=summary.version)
