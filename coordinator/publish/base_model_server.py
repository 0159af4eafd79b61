"""Base model for workers that lack it, through the store.

A base model that was made, pruned or taken from a local directory has no other source. When the
heartbeat of a worker requests its digest (`wants`), the files are published for a while, in chunks
under their SHA-256, and the manifest (`common/protocol/manifest.py`) under the digest of the base.
If the model is too large to be sent, only the manifest is published, which shows the size.

`worker/models/base_source.py` is the receiver.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from common.errors import FcclError, StoreError
from common.protocol import codec
from common.protocol.heartbeat import Heartbeat
from common.protocol.manifest import (
    MAX_SENT,
    ModelFile,
    make_manifest,
    parse_manifest,
    total_bytes,
)
from common.store.store import CHUNK, Store

TTL_S = 600
"""Seconds that the files stay in the store after the last request."""
RENEW_S = 60.0
"""Seconds after which the files' time to live is renewed, while a worker requests them."""
RETRY_S = 5.0
"""Seconds until the next attempt after the store has refused."""


class BaseModelServer:
    """Publisher of one run's base model on request.

    A thread reads and publishes the files, so that a large model does not block the coordinator.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        path: Path,
        digest: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._path = path
        self._digest = digest
        self._clock = clock
        self._listing: bytes | None = None
        self._thread: threading.Thread | None = None
        self._renew_at = 0.0
        self._problem = ""
        self._reported = ""

    def answer(self, heartbeats: Iterable[Heartbeat]) -> None:
        """Start to publish the model if a live worker requests it and it is not in the store.

        Raises:
            StoreError: The store is out of reach.
        """
        requested = any(heartbeat.wants == self._digest for heartbeat in heartbeats)
        if not requested or (self._thread is not None and self._thread.is_alive()):
            return
        due = self._clock() >= self._renew_at
        if not due and (self._problem or self._store.has_blob(self._run_id, self._digest)):
            return
        self._renew_at = self._clock() + RENEW_S
        self._thread = threading.Thread(target=self._run, name="base-model", daemon=True)
        self._thread.start()

    def new_problem(self) -> str:
        """Return a new reason why workers cannot get the model; empty if there is none."""
        if (problem := self._problem) == self._reported:
            return ""
        self._reported = problem
        return problem

    def wait(self) -> None:
        """Wait until nothing is being published."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._problem = self._publish()
        except FcclError as error:
            self._problem = f"the base model cannot be sent to workers: {error.what}"
            self._renew_at = self._clock() + RETRY_S
        except OSError as error:
            self._problem = f"the base model cannot be read: {error}"

    def _publish(self) -> str:
        """Publish the model, or renew its time to live; return the reason if that is impossible."""
        if self._listing is None:
            listing = make_manifest(self._path)
            if codec.digest(listing) != self._digest:
                return (
                    f"the files in {self._path} have changed since the run began, so workers"
                    " that lack the base model cannot get it; restore the files"
                )
            self._listing = listing
        files = parse_manifest(self._listing)
        problem = _size_problem(files)
        if not problem:
            if problem := self._memory_problem(files):
                return problem
            for file in files:
                self._publish_file(file)
        # The manifest comes last and expires first: a worker that finds it finds the files.
        self._store.put_blob(self._run_id, self._listing, TTL_S // 2)
        return problem

    def _publish_file(self, file: ModelFile) -> None:
        with (self._path / file.name).open("rb") as content:
            for index in range(max(1, -(-file.nbytes // CHUNK))):
                if self._store.renew_chunk(self._run_id, file.sha256, index, TTL_S):
                    continue
                content.seek(index * CHUNK)
                chunk = content.read(CHUNK)
                self._store.put_chunk(self._run_id, file.sha256, index, chunk, TTL_S)

    def _memory_problem(self, files: tuple[ModelFile, ...]) -> str:
        """Return why the model does not fit into the store's memory; empty if it does."""
        if self._store.has_blob(self._run_id, self._digest):
            return ""
        try:
            info = self._store.server_info()
        except StoreError:  # without the permission to query it
            return ""
        size = total_bytes(files)
        if info.limit == 0 or info.used + size <= info.limit:
            return ""
        return (
            f"the base model ({_mib(size)} MiB) does not fit into Redis, which uses"
            f" {_mib(info.used)} of {_mib(info.limit)} MiB: raise its maxmemory, or start workers"
            " with --base DIR"
        )


def _size_problem(files: tuple[ModelFile, ...]) -> str:
    size = total_bytes(files)
    if size <= MAX_SENT:
        return ""
    return (
        "a worker lacks the base model, which is too large to be sent through Redis"
        f" ({size / 2**30:.1f} GiB, limit {MAX_SENT / 2**30:.0f} GiB):"
        " start that worker with --base DIR"
    )


def _mib(size: int) -> int:
    return round(size / 2**20)
