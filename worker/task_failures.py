"""Unexpected errors of a task, most of them torch's: refusals for the coordinator, and a log.

A refusal names only the kind of error, since its message may quote the client's rows. The message
and the traceback go to this machine's log.
"""

from __future__ import annotations

import logging

from common.errors import ModelError
from learning.training.out_of_memory import REMEDY, free_memory, is_out_of_memory
from worker.site_task import SiteTask

LOGGER = logging.getLogger("fccl.worker")


class TaskFailures:
    """Translator of unexpected errors, which logs each of them once."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def refusal(self, task: SiteTask, error: Exception) -> ModelError:
        """Return the reason to refuse a task that ended with an error, and log the error."""
        found = self.reason(error)
        return ModelError(f"{found.what} in task {task.task_id} of {task.client_id}", found.remedy)

    def reason(self, error: Exception) -> ModelError:
        """Return what went wrong, with a remedy, and log the error."""
        if is_out_of_memory(error):
            free_memory()
            return ModelError("out of memory", REMEDY)
        key = type(error).__name__, str(error)
        if key not in self._logged:
            self._logged.add(key)
            LOGGER.error("unexpected error", exc_info=error)
        return ModelError(
            type(error).__name__,
            "the traceback is in this worker's log; check its model, its rows and its device",
        )
