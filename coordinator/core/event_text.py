"""Actions told as events: the feed that the terminal, `fccl status` and the journal show. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from common.protocol.feed import Event
from common.protocol.versions import VersionSummary
from coordinator.core.events import (
    AcceptUpdate,
    Action,
    CloseTask,
    CommitVersion,
    FinishRun,
    IssueTask,
    LogEvent,
)


def describe(
    action: Action, version: int, summaries: Mapping[int, VersionSummary]
) -> LogEvent | None:
    """What to say about an action, if anything.

    Args:
        action: Decided by the core.
        version: The version before the step.
        summaries: Of the commits in the step.
    """
    match action:
        case LogEvent():
            return action
        case IssueTask(task=task) if task.attempt == 1:
            text = f"{task.task_id} to {task.client_id} from version {task.base_version}"
            return LogEvent("info", "issued", text, _refs(task.task_id, task.client_id))
        case AcceptUpdate(update=update):
            stats = update.stats
            text = (
                f"{update.client_id} from version {update.base_version}"
                f" (staleness {version - update.base_version}),"
                f" loss {stats.avg_loss:.3f}, {stats.steps} steps in {stats.train_seconds:.1f} s"
            )
            return LogEvent("info", "accepted", text, _refs(update.task_id, update.client_id))
        case CloseTask(attempt=0):
            text = f"{action.task_id} of {action.client_id} closed: {action.reason}"
            return LogEvent("info", "closed", text, _refs(action.task_id, action.client_id))
        case CommitVersion():
            return _commit(summaries[action.version])
        case FinishRun():
            return LogEvent("info", "finished" if action.complete else "stopped", action.reason)
    return None


def to_event(note: LogEvent, now: float) -> Event:
    """A note as it enters the feed."""
    levels = {"info": "info", "warning": "warning", "error": "error"}
    fields = {"at": now, "level": levels[note.level], "kind": note.kind, "text": note.text}
    return Event.model_validate({**fields, "refs": dict(note.refs)})


def _commit(summary: VersionSummary) -> LogEvent:
    clients = ", ".join(f"{u.client_id} {u.weight:.2f}" for u in summary.updates)
    text = (
        f"version {summary.version}: {len(summary.updates)} updates ({clients}),"
        f" train loss {summary.train_loss:.3f},"
        f" holdout {summary.holdout_before:.3f} to {summary.holdout_after:.3f}"
    )
    return LogEvent("info", "version", text[:500], (("version", summary.version),))


def _refs(task_id: str, client_id: str) -> tuple[tuple[str, str], ...]:
    return (("task", task_id), ("client", client_id))
