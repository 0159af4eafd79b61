"""Where a task's model comes from: the base by digest, the adapter by content.

A made or local base model that is not on this machine is asked for through the heartbeat (`wants`)
and fetched, file by file and verified, from what the coordinator then puts into the store.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag

from common.errors import ModelError, StoreError, WireError
from common.model_cache import find_installed
from common.protocol import codec
from common.protocol.tasks import BaseRef, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.versions import Adapter, CurrentModel
from common.protocol.wire import unpack
from common.store.store import CHUNK, Store
from learning.models import base
from learning.models.base import ProgressCallback

POLL_S = 0.5
FETCHING = "fetching the base model"


class ModelSource:
    """Finds models for one run."""

    def __init__(self, store: Store, run: str, cache: Path, report: ProgressCallback) -> None:
        self._store = store
        self._run = run
        self._cache = cache
        self._report = report

    def reference(self, task: TrainTask) -> Tensors:
        """θ of the version that a `dpo` phase began with; the coordinator keeps it in the store.

        Raises:
            StoreError: Out of reach, or the version is not there (yet).
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
        header, data = unpack(Adapter, frame)
        return codec.decode(header.codec, header.tensors, data)

    def adapter(self, task: TrainTask) -> Tensors | None:
        """θ of the task's base version; None if no open task starts from that version any more.

        Raises:
            StoreError: Out of reach, or it came back empty and is yet to be filled again.
            WireError: The blob is no adapter of that version.
        """
        # The pointer is looked at first: the coordinator sets it last when it fills a store anew.
        filled = self._store.get_version(self._run) is not None
        frame = self._store.get_blob(self._run, task.adapter.sha256, task.adapter.nbytes)
        if frame is None and not filled:
            raise StoreError(
                f"the store at {self._store.where} is empty", "the coordinator fills it"
            )
        if frame is None:
            return None
        header, data = unpack(Adapter, frame)
        if header.version != task.base_version:
            raise WireError(f"the adapter is of version {header.version}, not {task.base_version}")
        return codec.decode(header.codec, header.tensors, data)

    def newest(self, known: int | None) -> tuple[CurrentModel, Tensors] | None:
        """The newest version; None if it is `known`, or cannot be had just now.

        Raises:
            StoreError: Out of reach.
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
        header, data = unpack(Adapter, frame)
        if header.version != model.version:
            raise WireError(f"the adapter is of version {header.version}, not {model.version}")
        return model, codec.decode(header.codec, header.tensors, data)

    def base(self, wanted: BaseRef, want: Callable[[str | None], None], stop: Flag) -> Path | None:
        """The directory of the base model; None if `stop` was set while it was fetched.

        Args:
            wanted: From the task.
            want: Told the digest to ask the coordinator for, and None once it is here.
            stop: Ends the waiting.

        Raises:
            ModelError: The hub's model of that name and revision has another digest.
            StoreError: Out of reach.
        """
        if (path := find_installed(wanted.digest, self._cache)) is not None:
            return path
        if wanted.kind == "hub" and (path := self._hub(wanted)) is not None:
            return path
        want(wanted.digest)
        try:
            return self._fetch(wanted, stop)
        finally:
            want(None)

    def _hub(self, wanted: BaseRef) -> Path | None:
        """From the hub; None where it cannot be had from there, as behind a hospital's firewall."""
        try:
            found = base.resolve(wanted.name, wanted.revision, self._cache, self._report)
        except ModelError:
            return None  # the coordinator has it
        if found.digest != wanted.digest:
            raise ModelError(
                f"{wanted.name} at {wanted.revision} has digest {found.digest[:12]} here,"
                f" the task wants {wanted.digest[:12]}",
                "remove it from the hub cache of this machine",
            )
        return found.path

    def _fetch(self, wanted: BaseRef, stop: Flag) -> Path | None:
        while not stop.wait(POLL_S):
            manifest = self._store.get_blob(self._run, wanted.digest, CHUNK)
            if manifest is not None:
                return base.install(manifest, wanted.digest, self._files(manifest), self._cache)
        return None

    def _files(self, manifest: bytes) -> Callable[[str, int], bytes]:
        """Fetches one file after the other, and tells how many of the bytes are here."""
        total = sum(file.nbytes for file in base.parse_manifest(manifest))
        done = 0

        def fetch(sha256: str, nbytes: int) -> bytes:
            nonlocal done
            self._report(FETCHING, done / max(1, total))
            data = self._file(sha256, nbytes)
            done += nbytes
            self._report(FETCHING, done / max(1, total))
            return data

        return fetch

    def _file(self, sha256: str, nbytes: int) -> bytes:
        data = self._store.get_blob(self._run, sha256, nbytes)
        if data is None:
            raise StoreError(f"file {sha256[:12]} of the base model is gone", "try again")
        return data
