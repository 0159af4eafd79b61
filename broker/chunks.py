"""Cuts one update into messages of 8 MiB, and reads each of them back.

An encoded update may be far larger than a broker's largest message. `worker` publishes the
messages that `split_update` makes; `coordinator` parses each as it arrives, writes it to its
place on disk and acks it, in whatever order and however often they come. Every chunk names the
whole that it belongs to, so a chunk that lies about its place is found out when it is parsed or,
at the latest, when the whole is hashed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from broker.protocol import Message
from common.errors import WireError

CHUNK_BYTES = 8 << 20
MAX_UPDATE_BYTES = 8 << 30

_UPDATE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Chunk:
    """A verified part of an update: its own hash and size are right, its place is possible.

    Attributes:
        update_id: The sender's name for the whole; a label, never a path.
        index: Which part, from 0.
        count: How many parts there are.
        offset: Where the part starts in the whole, bytes.
        sha256: Of `data`, in hex.
        total_sha256: Of the whole, in hex; claimed, not yet verified.
        total_size: Of the whole, bytes.
        data: The part.
    """

    update_id: str
    index: int
    count: int
    offset: int
    sha256: str
    total_sha256: str
    total_size: int
    data: bytes


def split_update(
    update_id: str, payload: bytes, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Message]:
    """The messages that carry an update, in order; one chunk is copied at a time.

    Args:
        update_id: Letters, digits and '_.:-', up to 128, a letter or digit first.
        payload: The encoded update, 1 byte to 8 GiB.
        chunk_bytes: The size of all chunks but the last; both sides must use the same.

    Raises:
        WireError: The id or the size is out of bounds.
    """
    _check(bool(_UPDATE_ID.match(update_id)), f"update id {update_id!r:.80} is not valid")
    _check(0 < len(payload) <= MAX_UPDATE_BYTES, f"update of {len(payload)} bytes cannot travel")
    whole = memoryview(payload)
    total_sha256 = hashlib.sha256(whole).hexdigest()
    count = _count(len(whole), chunk_bytes)
    for index in range(count):
        data = bytes(whole[index * chunk_bytes : (index + 1) * chunk_bytes])
        headers: dict[str, str | int] = {
            "update_id": update_id,
            "chunk_index": index,
            "chunk_count": count,
            "chunk_sha256": hashlib.sha256(data).hexdigest(),
            "total_sha256": total_sha256,
            "total_size": len(whole),
        }
        yield Message(data, headers, message_id=f"{update_id}/{index}")


def parse_chunk(
    message: Message, chunk_bytes: int = CHUNK_BYTES, max_update_bytes: int = MAX_UPDATE_BYTES
) -> Chunk:
    """Verify a message that anybody may have written.

    Args:
        message: From an update queue.
        chunk_bytes: The size of all chunks but the last.
        max_update_bytes: The largest update to accept.

    Raises:
        WireError: A header is missing, ill-typed or impossible, or the body is not what the
            headers say.
    """
    update_id = _text(message, "update_id", _UPDATE_ID)
    sha256 = _text(message, "chunk_sha256", _SHA256)
    total_sha256 = _text(message, "total_sha256", _SHA256)
    total_size = _number(message, "total_size", 1, max_update_bytes)
    count = _count(total_size, chunk_bytes)
    _number(message, "chunk_count", count, count)
    index = _number(message, "chunk_index", 0, count - 1)
    offset = index * chunk_bytes
    expected = min(chunk_bytes, total_size - offset)
    _check(
        len(message.body) == expected,
        f"chunk {index} of {count} has {len(message.body)} bytes instead of {expected}",
    )
    actual = hashlib.sha256(message.body).hexdigest()
    _check(actual == sha256, f"chunk {index} of {count} does not have the hash it claims")
    return Chunk(update_id, index, count, offset, sha256, total_sha256, total_size, message.body)


def assemble(chunks: Iterable[Chunk]) -> bytes:
    """The whole update, from its chunks in any order, repeated or not; for small updates.

    Raises:
        WireError: A chunk is missing or of another update, or the whole has another hash.
    """
    parts = {chunk.index: chunk for chunk in chunks}
    _check(bool(parts), "no chunks")
    wholes = {(part.update_id, part.total_sha256, part.count) for part in parts.values()}
    _check(len(wholes) == 1, "chunks of different updates")
    update_id, total_sha256, count = wholes.pop()
    _check(len(parts) == count, f"update {update_id} has {len(parts)} of {count} chunks")
    payload = b"".join(parts[index].data for index in range(count))
    actual = hashlib.sha256(payload).hexdigest()
    _check(actual == total_sha256, f"update {update_id} does not have the hash it claims")
    return payload


def _count(total_size: int, chunk_bytes: int) -> int:
    return -(-total_size // chunk_bytes)


def _text(message: Message, name: str, form: re.Pattern[str]) -> str:
    value = message.headers.get(name)
    if not isinstance(value, str) or not form.match(value):
        raise WireError(f"header {name} is {_shown(value)}, which is not valid")
    return value


def _number(message: Message, name: str, low: int, high: int) -> int:
    value = message.headers.get(name)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"header {name} is {_shown(value)}, not an integer in {low} to {high}")
    return value


def _shown(value: object) -> str:
    """A hostile value, short enough for an event: it becomes the dead letter's reason."""
    return "missing" if value is None else f"{value!r:.80}"


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WireError(otherwise)
