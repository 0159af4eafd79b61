"""Framing of records as bytes, and parsing, which treats every byte as hostile.

A frame is

    b"FCCL"  schema (1 byte)  header length (4 bytes, little endian)  header  data

The header is msgpack of at most 64 KiB and is unpacked under tight limits; tensors are raw bytes in
`data` at the offsets that the header declares (see `common.protocol.codec`). A record without
tensors has no data. Anything else raises `WireError`, and its consumer dead-letters the message.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError

from common.errors import WireError
from common.protocol.fields import Record
from common.protocol.tasks import MAX_TEMPLATE

SCHEMA = 1
MAX_HEADER = 64 * 1024
_PREFIX = struct.Struct("<4sBI")
_MAGIC = b"FCCL"

R = TypeVar("R", bound=Record)


def pack(record: Record, data: bytes = b"") -> bytes:
    """Return a frame of a record and the raw tensor bytes that its header describes.

    Raises:
        WireError: The header is larger than 64 KiB.
    """
    header: bytes = msgpack.packb([type(record).__name__, record.fields()])
    if len(header) > MAX_HEADER:
        raise WireError(
            f"{type(record).__name__} header has {len(header)} bytes, more than {MAX_HEADER}"
        )
    return _PREFIX.pack(_MAGIC, SCHEMA, len(header)) + header + data


def unpack(kind: type[R], frame: bytes) -> tuple[R, memoryview]:
    """Return the record, of the expected kind, and a view of the bytes that follow its header.

    Raises:
        WireError: The bytes are not a frame, have another schema version or kind, an oversized
            header, or a field that is missing, unknown or of the wrong type.
    """
    name, fields = _header(frame)
    if name != kind.__name__:
        raise WireError(f"expected {kind.__name__}, the message holds {str(name)[:40]!r}")
    try:
        record = kind.model_validate(fields)
    except ValidationError as error:
        raise WireError(f"{kind.__name__}: {explain(error)}") from None
    return record, memoryview(frame)[_PREFIX.size + _length(frame) :]


def kind_of(frame: bytes) -> str:
    """Return the name of the record in a frame.

    Raises:
        WireError: The bytes are not a frame with a valid header.
    """
    return str(_header(frame)[0])


def explain(error: ValidationError) -> str:
    """Return the first of pydantic's complaints in one line, without the offending value."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "record"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}"


def _length(frame: bytes) -> int:
    if len(frame) < _PREFIX.size:
        raise WireError(f"a frame of {len(frame)} bytes is too short")
    magic, schema, length = _PREFIX.unpack_from(frame)
    if magic != _MAGIC:
        raise WireError("the message is not an fccl frame")
    if schema != SCHEMA:
        raise WireError(f"schema version is {schema}, this software supports {SCHEMA}")
    if length > MAX_HEADER or _PREFIX.size + length > len(frame):
        raise WireError(f"header length {length} is above the limit, or the frame is cut short")
    return int(length)


def _header(frame: bytes) -> tuple[object, object]:
    raw = bytes(memoryview(frame)[_PREFIX.size : _PREFIX.size + _length(frame)])
    try:
        header = msgpack.unpackb(
            raw,
            object_pairs_hook=_unique_keys,
            max_str_len=4 * MAX_TEMPLATE,  # in bytes
            max_bin_len=64,
            max_array_len=4096,
            max_map_len=64,
            max_ext_len=0,
        )
    except WireError:
        raise
    except Exception as error:  # msgpack raises half a dozen unrelated types
        raise WireError(
            f"the header is not msgpack within the limits ({type(error).__name__})"
        ) from None
    if not isinstance(header, list) or len(header) != 2:
        raise WireError("the header is not a [kind, fields] pair")
    return header[0], header[1]


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise WireError("the header repeats a key")
    return fields
