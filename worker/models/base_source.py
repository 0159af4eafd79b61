"""Source of a task's base model: the cache, a directory of the user, the hub, the coordinator.

A base model that is neither on this machine nor on the hub is requested through the heartbeat
(`wants`). The coordinator publishes it in the store (`coordinator/publish/base_model_server.py`);
it is downloaded in chunks and every file is verified. The manifest is read first, because it shows
whether the model is small enough to be sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event as Flag

from filelock import FileLock, Timeout

from common.errors import ModelError, StoreError
from common.model_cache import find_installed, installed_path, link_installed
from common.protocol import codec
from common.protocol.manifest import (
    MAX_SENT,
    ModelFile,
    make_manifest,
    parse_manifest,
    total_bytes,
)
from common.protocol.tasks import BaseRef
from common.store.store import CHUNK, Store
from learning.models import base, hub
from learning.models.base import BaseModel
from learning.progress import ProgressCallback
from worker.settings.bandwidth import Throttle, TransferStopped

_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,99}")
POLL_S = 0.5
WAIT_S = 30.0
"""Seconds without an answer of the coordinator after which the worker reports it and retries."""


class BaseModelSource:
    """Provides the base models of one run."""

    def __init__(
        self,
        store: Store,
        run: str,
        cache: Path,
        on_progress: ProgressCallback,
        throttle: Throttle | None = None,
    ) -> None:
        self._store = store
        self._run = run
        self._cache = cache
        self._on_progress = on_progress
        self._throttle = throttle or Throttle(None)
        self._own: BaseModel | None = None

    def use_directory(self, path: Path) -> None:
        """Use the base model in a directory of this machine, in place, for all tasks.

        Raises:
            ModelError: The directory is not a model, or not that of the run.
        """
        self._on_progress(f"checking the base model in {path}", 0.0)
        own = base.resolve(str(path.resolve()), None, self._cache, self._on_progress)
        self._on_progress(f"checking the base model in {path}", 1.0)
        if (ref := self._ref_of_run()) is not None and ref.digest != own.digest:
            raise _wrong_directory(own, ref)
        link_installed(own.path, own.digest, self._cache)
        self._own = own

    def find(
        self, ref: BaseRef, on_request: Callable[[str | None], None], stop: Flag
    ) -> Path | None:
        """Return the directory of a base model; None if `stop` was set while it was fetched.

        `on_request` is called with the digest to request from the coordinator, and with None at the
        end.

        Raises:
            ModelError: The directory of `use_directory`, or the hub's model of that name and
                revision, has another digest; the model is too large to be sent; or its name is no
                name on the hub.
            StoreError: The store is out of reach, or the coordinator does not answer.
        """
        _check_name(ref)
        if (path := find_installed(ref.digest, self._cache)) is not None:
            return path
        if self._own is not None:
            if self._own.digest != ref.digest:
                raise _wrong_directory(self._own, ref)
            return self._own.path  # a file system without links
        reason = ""
        if ref.kind == "hub":
            try:
                return self._from_hub(ref)
            except _HubFailed as error:  # as behind a hospital's firewall; the coordinator has it
                reason = error.reason
        on_request(ref.digest)
        try:
            return self._from_coordinator(ref, reason, stop)
        finally:
            on_request(None)

    def _ref_of_run(self) -> BaseRef | None:
        """Return the run's base model; None if the store does not know it now."""
        try:
            model = self._store.get_model(self._run)
        except StoreError:
            return None
        return None if model is None else model.base

    def _from_hub(self, ref: BaseRef) -> Path:
        try:
            snapshot = hub.download(ref.name, ref.revision, self._on_progress)
        except ModelError as error:
            raise _HubFailed(error.what) from None
        digest = codec.digest(make_manifest(snapshot.path))
        if digest != ref.digest:
            raise ModelError(
                # The digest is not told: the coordinator reads this, and the model may be private.
                f"{ref.name} at {ref.revision} has another digest here than the task,"
                f" which names {ref.digest[:12]}",
                "remove it from the hub cache of this machine",
            )
        return link_installed(snapshot.path, digest, self._cache)

    def _from_coordinator(self, ref: BaseRef, reason: str, stop: Flag) -> Path | None:
        deadline = time.monotonic() + WAIT_S
        place = installed_path(ref.digest, self._cache)
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_name(f".{ref.digest}.lock"))
        while not stop.wait(POLL_S):
            if (path := find_installed(ref.digest, self._cache)) is not None:
                return path  # another worker of this machine has fetched it
            manifest = self._store.get_blob(self._run, ref.digest, CHUNK)
            if manifest is None:
                if time.monotonic() >= deadline:
                    raise StoreError(_no_answer(ref))
                continue
            _check_size(manifest, ref, reason)
            try:
                with lock.acquire(timeout=0):
                    return base.install(
                        manifest, ref.digest, self._fetch(stop), self._cache, self._on_progress
                    )
            except Timeout:
                continue  # another worker of this machine is fetching it
            except TransferStopped:
                return None
        return None

    def _fetch(self, stop: Flag) -> base.FetchFile:
        def before_chunk(nbytes: int) -> None:
            self._throttle.pace(nbytes, stop)

        def fetch(file: ModelFile, start: int) -> Iterator[bytes]:
            skipped = start % CHUNK
            for chunk in self._store.get_chunks(
                self._run, file.sha256, file.nbytes, start // CHUNK, before_chunk
            ):
                yield chunk[skipped:]
                skipped = 0

        return fetch


class _HubFailed(Exception):
    """The hub has no such model, or cannot be reached."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def _check_name(ref: BaseRef) -> None:
    """Raise `ModelError` if a model of the hub has no name of the hub, but a path for example."""
    revision = ref.revision or "main"
    valid = hub.is_hub_id(ref.name) and _REVISION.fullmatch(revision) and ".." not in revision
    if ref.kind == "hub" and not valid:
        raise ModelError(
            f"{ref.name!r:.80} at {revision!r:.80} is not the name of a model on the hub",
            "ask the coordinator's operator to check model.name and model.revision",
        )


def _label(ref: BaseRef) -> str:
    """Return a name of the model for people; of a local one, the last part of its path."""
    return Path(ref.name).name or "local" if ref.kind == "local" else ref.name


def _check_size(manifest: bytes, ref: BaseRef, reason: str) -> None:
    size = total_bytes(parse_manifest(manifest))
    if size <= MAX_SENT:
        return
    remedy = "copy it to this machine and start `fccl worker --base DIR`"
    if ref.kind == "hub":
        remedy = (
            f"let this machine download {ref.name} at {ref.revision} from the hub, or copy it here"
            " and start `fccl worker --base DIR`"
        )
    raise ModelError(
        f"the base model {_label(ref)} has {size / 2**30:.1f} GiB, and more than"
        f" {MAX_SENT / 2**30:.0f} GiB is not sent through Redis" + (reason and f" ({reason})"),
        remedy,
    )


def _wrong_directory(own: BaseModel, ref: BaseRef) -> ModelError:
    return ModelError(
        f"{own.path} holds a base model with digest {own.digest[:12]}, but the run's is"
        f" {_label(ref)} with digest {ref.digest[:12]}",
        "copy the directory of the coordinator as it is, or leave out --base",
    )


def _no_answer(ref: BaseRef) -> str:
    return (
        f"the coordinator has not sent the base model {_label(ref)} ({ref.digest[:12]}) for"
        f" {WAIT_S:.0f} s; the worker keeps asking. `fccl worker --base DIR` uses a copy on this"
        " machine"
    )
