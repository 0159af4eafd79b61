"""Tasks of both kinds that come from a site's queue: to train, and to evaluate."""

from __future__ import annotations

from common.protocol.evaluations import EvalTask
from common.protocol.tasks import TrainTask
from common.protocol.wire import kind_of, unpack

SiteTask = TrainTask | EvalTask


def unpack_task(frame: bytes | memoryview) -> SiteTask:
    """Return the task in a frame.

    Raises:
        WireError: The bytes are no task.
    """
    if kind_of(frame) == EvalTask.__name__:
        return unpack(EvalTask, frame)[0]
    return unpack(TrainTask, frame)[0]


def version_of(task: SiteTask) -> int:
    """Return the version from which a task trains, or which it evaluates."""
    return task.base_version if isinstance(task, TrainTask) else task.version
