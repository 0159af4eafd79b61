"""Base model for workers that lack it, through the store.

A base model that was made, pruned or taken from a local directory has no other source. A worker's
heartbeat says which digest it `wants`; the files then lie in the store for a while under their
SHA-256, with the manifest (`common/protocol/manifest.py`) under the base digest itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.protocol.heartbeat import Heartbeat
from common.protocol.manifest import make_manifest, parse_manifest
from common.store.store import Store

TTL_S = 600
"""Seconds: long enough to fetch the model, short enough that the store does not keep it."""


class BaseModelServer:
    """Publisher of one run's base model, when a worker asks for it."""

    def __init__(self, store: Store, run_id: str, path: Path, digest: str) -> None:
        self._store = store
        self._run_id = run_id
        self._path = path
        self._digest = digest

    def answer(self, heartbeats: Iterable[Heartbeat]) -> None:
        """Publish the model if a live worker asks for it and it is not in the store.

        Raises:
            StoreError: The store is out of reach.
        """
        wanted = any(heartbeat.wants == self._digest for heartbeat in heartbeats)
        if not wanted or self._store.has_blob(self._run_id, self._digest):
            return
        listing = make_manifest(self._path)
        for file in parse_manifest(listing):
            self._store.put_blob(self._run_id, (self._path / file.name).read_bytes(), TTL_S)
        # The manifest comes last and expires first: a worker that finds it finds the files.
        self._store.put_blob(self._run_id, listing, TTL_S // 2)
