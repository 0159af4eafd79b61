"""Splitting an update into messages of 8 MiB, and parsing each of them.

An encoded update may be far larger than a broker's largest message. The worker publishes the
messages of `split_update`; the coordinator parses each as it arrives, writes it to its place on
disk and acks it, in any order and any number of times. Every chunk names the update that it
belongs to, so a wrong place is detected when the chunk is parsed or, at the latest, when the whole
update is hashed.

In an update's path: `worker/publisher.py` → here → `broker/rabbit/broker.py`, and on the other
side → here → `coordinator/ingest/ingest.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from broker.protocol import Message
from common.errors import WireError

CHUNK_BYTES = 8 << 20
MAX_UPDATE_BYTES = 8 << 30

_UPDATE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Chunk:
    """A part of an update, verified: its own hash and size are right, its place is possible.

    Attributes:
        update_id: The sender's name for the update; never used as a path.
        offset: Start of the part in the update, bytes.
        sha256: Hash of `data`, in hex.
        total_sha256: Hash of the update, in hex; claimed, not yet verified.
        total_size: Size of the update, bytes.
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
    """Yield the messages that carry an update, in order, copying one chunk at a time.

    Args:
        update_id: Up to 128 letters, digits and '_.:-', a letter or digit first.
        payload: The encoded update, 1 byte to 8 GiB.
        chunk_bytes: Size of all chunks but the last; both sides must use the same.

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
    """Verify a message from an update queue, which may be hostile.

    Raises:
        WireError: A header is missing, has a wrong type or an impossible value, or the body does
            not match the headers.
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


def _count(total_size: int, chunk_bytes: int) -> int:
    return -(-total_size // chunk_bytes)


def _text(message: Message, name: str, pattern: re.Pattern[str]) -> str:
    value = message.headers.get(name)
    if not isinstance(value, str) or not pattern.match(value):
        raise WireError(f"header {name} is {_shorten(value)}, which is not valid")
    return value


def _number(message: Message, name: str, low: int, high: int) -> int:
    value = message.headers.get(name)
    if type(value) is not int or not low <= value <= high:
        raise WireError(f"header {name} is {_shorten(value)}, not an integer in {low} to {high}")
    return value


def _shorten(value: object) -> str:  # hostile; the dead letter's reason is short
    return "missing" if value is None else f"{value!r:.80}"


def _check(valid: bool, problem: str) -> None:
    if not valid:
        raise WireError(problem)
