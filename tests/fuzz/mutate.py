"""Mutations: of bytes, of lines, and of trees of values inside msgpack or JSON."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import msgpack

LONGEST = 1 << 18  # bytes of an input that is changed further
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 255, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**64 - 1,
    -(2**63),
    0.0, -0.0, 0.5, 1e308, 5e-324, -1.5, math.nan, math.inf, -math.inf,
    "", " ", "0", "\x00", "\x1b[2J", "\n", "\r\n", "[red]x[/red]", "[/", "{{ 7 * 7 }}", "../etc",
    "/dev/zero", "²", "१", "\u202e", "\u2028", "\ufeff", "e\u0301", "=1+1", "NaN", "1e999",
    "9" * 400,
    "a" * 300, "a" * 5000, "é" * 70_000, "t000001", "c0", "sft", "accepted", "local", "-1", "1e5",
    b"", b"\x00" * 64, b"\xff" * 65,
)  # fmt: skip
BITS = (b"\x00", b"\xff", b"\n", b"\r", b'"', b"'", b",", b"\t", b"[", b"{", b"]", b"}", b"=",
        b"\\", b"%", b"\x1b[31m", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\x80",
        b"\x1f\x8b", b"PAR1", b"FCCL", b"e9", b"-", b"0x", b"\x00\x00\x00\x80")  # fmt: skip


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """Return the input with a few bytes changed, taken out, repeated or put in."""
    result = bytearray(data[:LONGEST])
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        at = random.randrange(len(result) + 1)
        length = min(len(result) - at, random.choice([1, 2, 4, 8, 64, 1024]))
        match random.randrange(7):
            case 0 if at < len(result):
                result[at] ^= 1 << random.randrange(8)
            case 1:
                del result[at : at + length]
            case 2:
                result[at:at] = random.choice(BITS)
            case 3:
                result[at:at] = result[at : at + length] * random.choice([1, 2, 50])
            case 4:
                result[at : at + length] = random.randbytes(length)
            case 5:
                size = random.choice(["<I", ">I", "<Q", "<H"])
                top = 1 << 8 * struct.calcsize(size)
                number = random.choice([0, 1, top - 1, top // 2, len(data), len(data) + 1]) % top
                result[at : at + length] = struct.pack(size, number)
            case _:
                del result[at:]
    return bytes(result)


def mutate_lines(random: Random, data: bytes) -> bytes:
    """Return the input with lines repeated, removed, exchanged, joined or broken."""
    lines = data[:LONGEST].split(b"\n")
    for _ in range(random.choice([1, 1, 2, 5])):
        at, other = random.randrange(len(lines)), random.randrange(len(lines))
        match random.randrange(6):
            case 0:
                lines[at], lines[other] = lines[other], lines[at]
            case 1:
                lines.insert(at, lines[other])
            case 2 if len(lines) > 1:
                del lines[at]
            case 3:
                lines[at] = mutate_bytes(random, lines[at])
            case 4:
                lines[at] = lines[at].replace(random.choice(BITS), random.choice(BITS))
            case _:
                key, mark, _ = lines[at].partition(b"=")
                value = json.dumps(random.choice(SCALARS[:-3])).encode()
                lines[at] = (
                    key + mark + value if mark else lines[at][:500] * random.choice([2, 300])
                )
    return b"\n".join(lines)


def mutate_tree(random: Random, value: Any) -> Any:
    """Return a tree of lists, maps and scalars with one place changed."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        return _mutate_map(random, value)
    if isinstance(value, list | tuple) and value and random.random() < 0.9:
        items = list(value)
        at = random.randrange(len(items))
        match random.randrange(6):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[random.randrange(len(items))])
            case 2:
                return items * random.choice([2, 10, 3000 // len(items) + 1])
            case _:
                items[at] = mutate_tree(random, items[at])
        return items
    return _replaced(random, value)


def _mutate_map(random: Random, value: dict[Any, Any]) -> dict[Any, Any]:
    key = random.choice(list(value))
    match random.randrange(8):
        case 0:
            return {k: v for k, v in value.items() if k != key}
        case 1:
            return {**value, random.choice(["unknown", "", "\x1b[1m", "a" * 500, key * 2]): 1}
        case 2:
            return {**value, key: value[random.choice(list(value))]}
        case _:
            return {**value, key: mutate_tree(random, value[key])}


def _replaced(random: Random, value: Any) -> Any:
    match random.randrange(8):
        case 0:
            nested: Any = value
            for _ in range(random.choice([1, 40, 600, 3000])):
                nested = [nested] if random.random() < 0.7 else {"a": nested}
            return nested
        case 1 if isinstance(value, int | float) and not isinstance(value, bool):
            return random.choice([-value, value + 1, value * 2**40, value - 1])
        case 2 if isinstance(value, str):
            at = random.randrange(len(value) + 1)
            return value[:at] + str(random.choice(SCALARS)) + value[at:]
        case 3:
            return random.choice([[], {}, [value], {"a": value}, str(value)])
    return random.choice(SCALARS)


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")


def mutate_json(random: Random, data: bytes) -> bytes:
    """Return a JSON document with a value changed."""
    try:
        return _json(mutate_tree(random, json.loads(data)))
    except (ValueError, RecursionError):
        return mutate_bytes(random, data)


def mutate_json_lines(random: Random, data: bytes) -> bytes:
    """Return JSON lines with one value changed."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = mutate_json(random, lines[at])
    return b"\n".join(lines)


def mutate_msgpack(random: Random, data: bytes) -> bytes:
    """Return a msgpack document with a value changed."""
    try:
        return _packed(mutate_tree(random, msgpack.unpackb(data, strict_map_key=False)))
    except Exception:
        return mutate_bytes(random, data)


def _packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))


def mutate_frame(random: Random, data: bytes) -> bytes:
    """Return a frame of `common/protocol/wire.py` with a field of its header changed."""
    try:
        length = struct.unpack_from("<I", data, 5)[0]
        header = msgpack.unpackb(data[9 : 9 + length], strict_map_key=False)
        name, fields = header
        header = [name, mutate_tree(random, fields)]
        packed = _packed(header)
    except Exception:
        return mutate_bytes(random, data)
    schema = bytes([random.choice([1, 2, 2, 0, 255])]) if random.random() < 0.2 else data[4:5]
    rest = data[9 + length :]
    if random.random() < 0.3:
        rest = mutate_bytes(random, rest)
    return data[:4] + schema + struct.pack("<I", len(packed)) + packed + rest


def inside(
    mutate: Callable[[Random, bytes], bytes], *path: str | int
) -> Callable[[Random, bytes], bytes]:
    """Return a mutation of one place inside a msgpack document."""

    def change(random: Random, data: bytes) -> bytes:
        try:
            document = msgpack.unpackb(data, strict_map_key=False)
            node = document
            for part in path[:-1]:
                node = node[part]
            node[path[-1]] = mutate(random, node[path[-1]])
            return _packed(document)
        except Exception:
            return mutate_bytes(random, data)

    return change


def mutate_token(random: Random, data: bytes) -> bytes:
    """Return a join token with a right checksum around changed content."""
    try:
        mark, body, _ = data.split(b".")
        content = base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4))
        changed = base64.urlsafe_b64encode(mutate_json(random, content)).rstrip(b"=")
    except ValueError:
        return mutate_bytes(random, data)
    mark = random.choice([mark, mark, mark, b"fccl1", b"fccl2", b"fccl3", "fccl²".encode()])
    return b".".join((mark, changed, hashlib.sha256(changed).hexdigest()[:8].encode()))


def mutate_safetensors(random: Random, data: bytes) -> bytes:
    """Return a safetensors file with a value of its header changed."""
    try:
        length = struct.unpack_from("<Q", data)[0]
        header = mutate_json(random, data[8 : 8 + length])
        size = random.choice([len(header)] * 9 + [2**63])
        return struct.pack("<Q", size) + header + data[8 + length :]
    except (struct.error, OverflowError):
        return mutate_bytes(random, data)
