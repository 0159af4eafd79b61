"""Source of a task's models: the base model by its digest, adapters by their content.

`worker/models/base_source.py` finds the base model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event as Flag

from common.errors import StoreError, WireError
from common.protocol.adapter_form import is_frozen
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.evaluations import EvalTask
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BaseRef, BlobRef, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from common.store.store import Store
from learning.progress import ProgressCallback
from worker.models.base_source import BaseModelSource
from worker.settings.accepted_models import check_accepted
from worker.settings.bandwidth import Throttle


class ModelSource:
    """Provides the models of one run.

    Args:
        accept: Patterns of base models; others are refused before anything is fetched.
        throttle: Limit of the bandwidth for downloads from the store.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        cache: Path,
        on_progress: ProgressCallback,
        accept: Sequence[str] = (),
        throttle: Throttle | None = None,
    ) -> None:
        self._store = store
        self._run = run
        self._accept = accept
        self._throttle = throttle or Throttle(None)
        self._base = BaseModelSource(store, run, cache, on_progress, self._throttle)
        self._frozen: tuple[str, Tensors] | None = None  # digest and content of what was fetched

    def fetch_reference(self, task: TrainTask, stop: Flag) -> Tensors:
        """Return θ of the version that a `dpo` phase began with.

        It is in the store for as long as the phase lasts.

        Raises:
            TransferStopped: `stop` was set first.
            StoreError: The store is out of reach, or does not hold the version (yet).
            WireError: The blob is no adapter.
        """
        if task.reference is None:
            raise WireError(f"task {task.task_id} names no reference")
        frame = self._fetch_blob(task.reference, stop)
        if frame is None:
            raise StoreError(
                f"the reference {task.reference.sha256[:12]} is not in {self._store.where}",
                "the coordinator fills it",
            )
        return self._complete(unpack_adapter(frame)[1], task.frozen, stop)

    def fetch_adapter(self, task: TrainTask, stop: Flag) -> Tensors | None:
        """Return θ of the task's base version.

        None means that the version is gone: no open task starts from it any more.

        Raises:
            TransferStopped: `stop` was set first.
            StoreError: The store is out of reach, or came back empty and is not filled yet.
            WireError: The blob is no adapter of that version, or has another layout than the task.
        """
        adapter = self._fetch(task.adapter, task.base_version, task.layout, stop)
        return None if adapter is None else self._complete(adapter, task.frozen, stop)

    def fetch_evaluated(self, task: EvalTask, blob: BlobRef, stop: Flag) -> Tensors | None:
        """Return θ of the version that a task evaluates, of its candidate or of its reference.

        None means that it is gone. Raises as `fetch_adapter` does.
        """
        version = task.version if blob == task.adapter else None
        adapter = self._fetch(blob, version, task.layout, stop)
        return None if adapter is None else self._complete(adapter, task.frozen, stop)

    def _complete(self, adapter: Tensors, frozen: BlobRef | None, stop: Flag) -> Tensors:
        """Return an adapter with the tensors that do not travel with it, which are fetched once.

        Raises as `fetch_adapter` does.
        """
        if frozen is None:
            return adapter
        if self._frozen is None or self._frozen[0] != frozen.sha256:
            frame = self._fetch_blob(frozen, stop)
            if frame is None:
                raise StoreError(
                    f"the frozen factors {frozen.sha256[:12]} are not in {self._store.where}",
                    "the coordinator fills it",
                )
            self._frozen = frozen.sha256, _frozen_factors(frame)
        if shared := adapter.keys() & self._frozen[1].keys():
            raise WireError(f"tensor {min(shared)} is frozen, but travels with the adapter")
        complete = adapter | self._frozen[1]
        return {name: complete[name] for name in sorted(complete)}

    def _fetch(
        self, blob: BlobRef, version: int | None, layout: str | None, stop: Flag
    ) -> Tensors | None:
        """Return an adapter; None if it is gone. Version and layout are checked if given."""
        # The version is read first: the coordinator sets it last when it fills a store again.
        filled = self._store.get_version(self._run) is not None
        frame = self._fetch_blob(blob, stop)
        if frame is None and not filled:
            raise StoreError(
                f"the store at {self._store.where} is empty", "the coordinator fills it"
            )
        if frame is None:
            return None
        header, adapter = unpack_adapter(frame)
        if version is not None and header.version != version:
            raise WireError(f"the adapter is of version {header.version}, not {version}")
        if layout is not None and layout != TensorLayout.of(adapter).digest:
            raise WireError(
                f"the adapter of version {header.version} does not have the task's tensor layout"
            )
        return adapter

    def fetch_newest(self, known: int | None) -> tuple[CurrentModel, Tensors] | None:
        """Return the newest version; None if it is `known`, or is not available now.

        It is not available either while the bandwidth is used up, as nobody waits for it.

        Raises:
            ModelError: The site does not accept its base model.
            StoreError: The store is out of reach.
            WireError: What the store holds is no adapter of that version.
        """
        version = self._store.get_version(self._run)
        if version is None or (known is not None and version <= known):
            return None
        model = self._store.get_model(self._run)
        if model is None or (known is not None and model.version <= known):
            return None
        check_accepted(self._accept, model.base)
        if not self._throttle.try_take(model.adapter.nbytes):
            return None
        frame = self._store.get_blob(self._run, model.adapter.sha256, model.adapter.nbytes)
        if frame is None:
            return None
        header, adapter = unpack_adapter(frame)
        if header.version != model.version:
            raise WireError(f"the adapter is of version {header.version}, not {model.version}")
        return model, self._complete(adapter, model.frozen, Flag())

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
            ModelError: The site does not accept it; there is another model in its place, or it is
                too large to be sent.
            StoreError: The store is out of reach, or the coordinator does not answer.
        """
        check_accepted(self._accept, ref)
        return self._base.find(ref, on_request, stop)

    def _fetch_blob(self, blob: BlobRef, stop: Flag) -> bytes | None:
        def pace(nbytes: int) -> None:
            self._throttle.pace(nbytes, stop)

        return self._store.get_blob(self._run, blob.sha256, blob.nbytes, pace)


def _frozen_factors(frame: bytes) -> Tensors:
    """Return the tensors of a frame that holds nothing but frozen factors."""
    tensors = unpack_adapter(frame)[1]
    if other := [name for name in tensors if not is_frozen(name)]:
        raise WireError(f"tensor {other[0]} is no factor that can be frozen")
    return tensors
