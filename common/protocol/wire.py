"""Framing of records as bytes, and parsing, which treats every byte as hostile.

A frame is

    b"FCCL"  schema (1 byte)  header length (4 bytes, little endian)  header  data

The header is msgpack of at most 64 KiB and is unpacked under tight limits; tensors are raw bytes in
`data`, in the order of their layout (see `common.protocol.codec`). A record without tensors has no
data. Anything else raises `WireError`, and its consumer dead-letters the message.

Each kind of record has its own schema versions. A record is written in the lowest one that has all
its fields (`Record.schema_version`), so that earlier releases can still read unchanged kinds.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgpack
from pydantic import ValidationError

from common.errors import WireError
from common.protocol.fields import Record
from common.text import one_line

SCHEMAS = (1, 2)
"""Schema versions that this release reads."""
MAX_HEADER = 64 * 1024
_PREFIX = struct.Struct("<4sBI")
_MAGIC = b"FCCL"

R = TypeVar("R", bound=Record)


def pack(record: Record, *data: bytes) -> bytes:
    """Return a frame of a record and the raw bytes that its header describes.

    Raises:
        WireError: The header is larger than 64 KiB.
    """
    schema, fields = record.schema_version, record.fields()
    for name in record.added if schema == 1 else record.removed:
        del fields[name]
    for name in record.later:
        if getattr(record, name) == type(record).model_fields[name].default:
            fields.pop(name, None)
    header: bytes = msgpack.packb([type(record).__name__, fields])
    if len(header) > MAX_HEADER:
        raise WireError(
            f"{type(record).__name__} header has {len(header)} bytes, more than {MAX_HEADER}"
        )
    return b"".join((_PREFIX.pack(_MAGIC, schema, len(header)), header, *data))


def unpack(kind: type[R], frame: bytes | memoryview) -> tuple[R, memoryview]:
    """Return the record, of the expected kind, and a view of the bytes that follow its header.

    Raises:
        WireError: The bytes are not a frame, have another schema version or kind, an oversized
            header, or a field that is missing, unknown or of the wrong type.
    """
    schema, length = _prefix(frame)
    name, fields = _header(frame, length)
    if name != kind.__name__:
        raise WireError(f"expected {kind.__name__}, the message holds {str(name)[:40]!r}")
    _check_schema(kind, schema, fields)
    try:
        record = kind.model_validate(fields)
    except ValidationError as error:
        raise WireError(f"{kind.__name__}: {explain(error)}") from None
    return record, memoryview(frame)[_PREFIX.size + length :]


def kind_of(frame: bytes | memoryview) -> str:
    """Return the name of the record in a frame.

    Raises:
        WireError: The bytes are not a frame with a valid header.
    """
    return str(_header(frame, _prefix(frame)[1])[0])


def explain(error: ValidationError) -> str:
    """Return the first of pydantic's complaints in one line, without the offending value."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200] or "record"
    message = first["msg"].removeprefix("Value error, ")[:500]
    return one_line(f"{where}: {message[:1].lower()}{message[1:]}")  # may repeat foreign names


def _check_schema(kind: type[Record], schema: int, fields: object) -> None:
    if schema == 2 and not kind.added:
        raise WireError(f"schema version of {kind.__name__} is 2, this software supports 1")
    unknown = kind.added if schema == 1 else kind.removed
    if isinstance(fields, dict) and (found := sorted(unknown & fields.keys())):
        raise WireError(f"{kind.__name__} has no field {found[0]} in schema version {schema}")


def _prefix(frame: bytes | memoryview) -> tuple[int, int]:
    """Return the schema version and the length of the header."""
    if len(frame) < _PREFIX.size:
        raise WireError(f"a frame of {len(frame)} bytes is too short")
    magic, schema, length = _PREFIX.unpack_from(frame)
    if magic != _MAGIC:
        raise WireError("the message is not an fccl frame")
    if schema not in SCHEMAS:
        raise WireError(f"schema version is {schema}, this software supports 1 to {SCHEMAS[-1]}")
    if length > MAX_HEADER or _PREFIX.size + length > len(frame):
        raise WireError(f"header length {length} is above the limit, or the frame is cut short")
    return int(schema), int(length)


def _header(frame: bytes | memoryview, length: int) -> tuple[object, object]:
    raw = bytes(memoryview(frame)[_PREFIX.size : _PREFIX.size + length])
    try:
        header = msgpack.unpackb(
            raw,
            object_pairs_hook=_unique_keys,
            max_str_len=MAX_HEADER,  # a chat template is the longest text
            max_bin_len=64,
            max_array_len=4096,  # a tensor table of schema 1, the clients of a heartbeat
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
