"""Newest version that a worker knows, announced and saved for the commands beside it.

All methods raise `DataError` if the state directory cannot be written.
It comes with a task or, where a client has an inbox, from the store. `training/trainer.py` trains
on top of it; `fccl try` answers with it (`serving/client_model.py`).
"""

from __future__ import annotations

import time
from pathlib import Path

from common.protocol.tasks import TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun
from worker.models.source import ModelSource

SAVE_INTERVAL_S = 5.0  # shortest time between two writes of a version to the disk


class NewestVersion:
    """Newest version of one run."""

    def __init__(self, state: Path, served: ServedRun, source: ModelSource) -> None:
        self._state, self._served, self._source = state, served, source
        self._announced: ServedRun | None = None
        self._saved: tuple[int, float] = (-1, 0.0)  # version and time of the last save
        self.value: tuple[CurrentModel, Tensors] | None = None  # its description and θ

    @property
    def number(self) -> int | None:
        return self.value[0].version if self.value else None

    def announce(self) -> None:
        """Write which clients are served and what they can learn, if that has changed."""
        served = self._served
        if self.value is not None:
            model, _ = self.value
            kinds = ("cls",) if model.objective == "classification" else ("sft", "va", "kto")
            served = served.model_copy(update={"kinds": kinds, "labels": model.labels})
        if served != self._announced:
            served_run.write(self._state, served)
            self._announced = served

    def update(self, task: TrainTask, adapter: Tensors) -> None:
        """Take over the version of a task, if it is newer."""
        if self.number is not None and task.base_version <= self.number:
            return
        self.value = model_of(task), adapter
        self.announce()
        self.save()

    def fetch(self) -> None:
        """Fetch a newer version from the store, if there is one.

        Raises:
            StoreError: The store is not reachable.
            WireError: The version is damaged.
            ModelError: The version does not fit its description.
        """
        found = self._source.fetch_newest(self.number)
        if found is not None:
            self.value = found
            self.announce()

    def save(self, interval_s: float = SAVE_INTERVAL_S) -> None:
        """Save the version unless another one was saved within the interval."""
        if self.value is None:
            return
        model, adapter = self.value
        version, at = self._saved
        now = time.monotonic()
        if model.version != version and (version < 0 or now - at >= interval_s):
            served_run.save_model(self._state, model, adapter)
            self._saved = model.version, now


def model_of(task: TrainTask) -> CurrentModel:
    """Return the description of the version that a task trains."""
    return CurrentModel(
        run=task.run,
        version=task.base_version,
        phase=task.phase,
        objective=task.objective,
        base=task.base,
        adapter=task.adapter,
        lora=task.lora,
        max_length=task.training.max_length,
        dpo=task.dpo,
        kto=task.kto,
        labels=task.labels,
        prompt=task.prompt,
        precision=task.precision,
        frozen=task.frozen,
        refactored=task.refactored,
    )
