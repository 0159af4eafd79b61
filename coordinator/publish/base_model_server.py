"""Gives the base model to workers that lack it: a made, pruned or local one has no other source.

A worker's heartbeat says that it `wants` a digest; the files then lie in the store for a while, by
content, with the manifest under the base digest itself (`common/protocol/manifest.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.protocol.heartbeat import Heartbeat
from common.protocol.manifest import make_manifest, parse_manifest
from common.store.store import Store

TTL_S = 600  # long enough to fetch; short enough that the store does not keep the model


class BaseServer:
    """Serves one run's base model."""

    def __init__(self, store: Store, run: str, path: Path, digest: str) -> None:
        self._store = store
        self._run = run
        self._path = path
        self._digest = digest

    def serve(self, heartbeats: Iterable[Heartbeat]) -> None:
        """Publish the model if a live worker asks for it and it is not there.

        Raises:
            StoreError: The store is out of reach.
        """
        wanted = any(heartbeat.wants == self._digest for heartbeat in heartbeats)
        if not wanted or self._store.has_blob(self._run, self._digest):
            return
        listing = make_manifest(self._path)
        for file in parse_manifest(listing):
            self._store.put_blob(self._run, (self._path / file.name).read_bytes(), TTL_S)
        # The manifest comes last, and expires first: whoever finds it finds the files.
        self._store.put_blob(self._run, listing, TTL_S // 2)
