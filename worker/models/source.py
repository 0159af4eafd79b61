"""Source of a task's models: the base model by its digest, adapters by their content.

`worker/models/base_source.py` finds the base model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag

from common.errors import StoreError, WireError
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BaseRef, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from common.store.store import Store
from learning.progress import ProgressCallback
from worker.models.base_source import BaseModelSource


class ModelSource:
    """Provides the models of one run."""

    def __init__(self, store: Store, run: str, cache: Path, on_progress: ProgressCallback) -> None:
        self._store = store
        self._run = run
        self._base = BaseModelSource(store, run, cache, on_progress)

    def fetch_reference(self, task: TrainTask) -> Tensors:
        """Return θ of the version that a `dpo` phase began with.

        It is in the store for as long as the phase lasts.

        Raises:
            StoreError: The store is out of reach, or does not hold the version (yet).
            WireError: The blob is no adapter.
        """
        if task.reference is None:
            raise WireError(f"task {task.task_id} names no reference")
        frame = self._store.get_blob(self._run, task.reference.sha256, task.reference.nbytes)
        if frame is None:
            raise StoreError(
                f"the reference {task.reference.sha256[:12]} is not in {self._store.where}",
                "the coordinator fills it",
            )
        return unpack_adapter(frame)[1]

    def fetch_adapter(self, task: TrainTask) -> Tensors | None:
        """Return θ of the task's base version.

        None means that the version is gone: no open task starts from it any more.

        Raises:
            StoreError: The store is out of reach, or came back empty and is not filled yet.
            WireError: The blob is no adapter of that version, or has another layout than the task.
        """
        # The version is read first: the coordinator sets it last when it fills a store again.
        filled = self._store.get_version(self._run) is not None
        frame = self._store.get_blob(self._run, task.adapter.sha256, task.adapter.nbytes)
        if frame is None and not filled:
            raise StoreError(
                f"the store at {self._store.where} is empty", "the coordinator fills it"
            )
        if frame is None:
            return None
        header, adapter = unpack_adapter(frame)
        if header.version != task.base_version:
            raise WireError(f"the adapter is of version {header.version}, not {task.base_version}")
        if task.layout is not None and task.layout != TensorLayout.of(adapter).digest:
            raise WireError(
                f"the adapter of version {header.version} does not have the task's tensor layout"
            )
        return adapter

    def fetch_newest(self, known: int | None) -> tuple[CurrentModel, Tensors] | None:
        """Return the newest version; None if it is `known`, or is not available now.

        Raises:
            StoreError: The store is out of reach.
            WireError: What the store holds is no adapter of that version.
        """
        version = self._store.get_version(self._run)
        if version is None or (known is not None and version <= known):
            return None
        model = self._store.get_model(self._run)
        if model is None or (known is not None and model.version <= known):
            return None
        frame = self._store.get_blob(self._run, model.adapter.sha256, model.adapter.nbytes)
        if frame is None:
            return None
        header, adapter = unpack_adapter(frame)
        if header.version != model.version:
            raise WireError(f"the adapter is of version {header.version}, not {model.version}")
        return model, adapter

    def use_base_directory(self, path: Path) -> None:
        """Use the base model in a directory of this machine.

        Raises:
            ModelError: The directory holds no model, or another one than that of the run.
        """
        self._base.use_directory(path)

    def fetch_base(
        self, ref: BaseRef, on_request: Callable[[str | None], None], stop: Flag
    ) -> Path | None:
        """Return the directory of a base model; None if `stop` was set while it was fetched.

        `on_request` is called with the digest to request from the coordinator, and with None at the
        end.

        Raises:
            ModelError: There is another model in its place, or it is too large to be sent.
            StoreError: The store is out of reach, or the coordinator does not answer.
        """
        return self._base.find(ref, on_request, stop)
