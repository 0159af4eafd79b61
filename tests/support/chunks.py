"""Joining the chunks of an update, which the product never has in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from broker.chunks import Chunk


def join_chunks(chunks: Iterable[Chunk]) -> bytes:
    """Return the update that consists of these chunks, in any order, repeated or not."""
    parts = {chunk.index: chunk for chunk in chunks}
    assert sorted(parts) == list(range(parts[0].count))
    return b"".join(parts[index].data for index in sorted(parts))
