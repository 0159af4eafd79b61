"""Base model for workers that lack it, through the store.

A base model that was made, pruned or taken from a local directory has no other source. When the
heartbeat of a worker requests its digest (`wants`), the files are in the store for a while, under
their SHA-256, and the manifest (`common/protocol/manifest.py`) under the base digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.protocol.heartbeat import Heartbeat
from common.protocol.manifest import make_manifest, parse_manifest
from common.store.store import Store

TTL_S = 600
"""Seconds that the files stay: enough to fetch the model; then the store has the memory again."""


class BaseModelServer:
    """Publisher of one run's base model on request."""

    def __init__(self, store: Store, run_id: str, path: Path, digest: str) -> None:
        self._store = store
        self._run_id = run_id
        self._path = path
        self._digest = digest

    def answer(self, heartbeats: Iterable[Heartbeat]) -> None:
        """Publish the model if a live worker requests it and it is not in the store."""
        requested = any(heartbeat.wants == self._digest for heartbeat in heartbeats)
        if not requested or self._store.has_blob(self._run_id, self._digest):
            return
        listing = make_manifest(self._path)
        for file in parse_manifest(listing):
            self._store.put_blob(self._run_id, (self._path / file.name).read_bytes(), TTL_S)
        # The manifest comes last and expires first: a worker that finds it finds the files.
        self._store.put_blob(self._run_id, listing, TTL_S // 2)
