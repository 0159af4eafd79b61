"""Source of a task's models: the base model by its digest, adapters by their content.

A base model that is neither on this machine nor on the hub is requested through the heartbeat
(`wants`). The coordinator puts it into the store, from where it is fetched and verified, file by
file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag

from common.errors import ModelError, StoreError, WireError
from common.model_cache import find_installed
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.layout import TensorLayout
from common.protocol.manifest import parse_manifest
from common.protocol.tasks import BaseRef, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from common.store.store import CHUNK, Store
from learning.models import base
from learning.progress import ProgressCallback

POLL_S = 0.5
FETCHING = "fetching the base model"


class ModelSource:
    """Provides the models of one run."""

    def __init__(self, store: Store, run: str, cache: Path, on_progress: ProgressCallback) -> None:
        self._store = store
        self._run = run
        self._cache = cache
        self._on_progress = on_progress

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

    def fetch_base(
        self, ref: BaseRef, on_request: Callable[[str | None], None], stop: Flag
    ) -> Path | None:
        """Return the directory of a base model; None if `stop` was set while it was fetched.

        `on_request` is called with the digest to request from the coordinator, and with None at the
        end.

        Raises:
            ModelError: The hub's model of that name and revision has another digest.
            StoreError: The store is out of reach.
        """
        if (path := find_installed(ref.digest, self._cache)) is not None:
            return path
        if ref.kind == "hub" and (path := self._from_hub(ref)) is not None:
            return path
        on_request(ref.digest)
        try:
            return self._from_coordinator(ref, stop)
        finally:
            on_request(None)

    def _from_hub(self, ref: BaseRef) -> Path | None:
        """Return a model from the hub; None where that fails, as behind a hospital's firewall."""
        try:
            resolved = base.resolve(ref.name, ref.revision, self._cache, self._on_progress)
        except ModelError:
            return None  # the coordinator has it
        if resolved.digest != ref.digest:
            raise ModelError(
                f"{ref.name} at {ref.revision} has digest {resolved.digest[:12]} here,"
                f" but the task names {ref.digest[:12]}",
                "remove it from the hub cache of this machine",
            )
        return resolved.path

    def _from_coordinator(self, ref: BaseRef, stop: Flag) -> Path | None:
        while not stop.wait(POLL_S):
            manifest = self._store.get_blob(self._run, ref.digest, CHUNK)
            if manifest is not None:
                return base.install(manifest, ref.digest, self._files(manifest), self._cache)
        return None

    def _files(self, manifest: bytes) -> Callable[[str, int], bytes]:
        """Return a function that fetches one file, and reports the progress of all."""
        total = sum(file.nbytes for file in parse_manifest(manifest))
        done = 0

        def fetch(sha256: str, nbytes: int) -> bytes:
            nonlocal done
            self._on_progress(FETCHING, done / max(1, total))
            data = self._file(sha256, nbytes)
            done += nbytes
            self._on_progress(FETCHING, done / max(1, total))
            return data

        return fetch

    def _file(self, sha256: str, nbytes: int) -> bytes:
        data = self._store.get_blob(self._run, sha256, nbytes)
        if data is None:
            raise StoreError(f"file {sha256[:12]} of the base model is gone", "try again")
        return data
