"""Frames of adapters: the tensors of one version, as the coordinator publishes them.

    header (version, codec, layout)  canonical form of the layout  payloads in the layout's order

The layout is part of the frame because readers such as `fccl try` have no model to derive it from.
In schema 1 the header contains a tensor table, and only the payloads follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from common.errors import WireError
from common.protocol import codec
from common.protocol.fields import CodecName
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BlobRef
from common.protocol.tensor_table import layout_of, make_table
from common.protocol.tensors import Array, Tensors
from common.protocol.versions import Adapter
from common.protocol.wire import pack, unpack


def pack_adapter(
    version: int, name: CodecName, tensors: Mapping[str, Array], *, schema1: bool = False
) -> bytes:
    """Return the frame of a version, always the same bytes; in schema 1 on request.

    Raises:
        ValueError: A tensor contains NaN or infinity.
        WireError: A limit of `TensorLayout` is exceeded.
    """
    return b"".join(_parts(version, name, tensors, schema1=schema1))


def adapter_ref(
    version: int, name: CodecName, tensors: Mapping[str, Array], *, schema1: bool = False
) -> BlobRef:
    """Return digest and size of the frame of a version, without making it; raise as above."""
    digest, nbytes = hashlib.sha256(), 0
    for part in _parts(version, name, tensors, schema1=schema1):
        digest.update(part)
        nbytes += len(part)
    return BlobRef(sha256=digest.hexdigest(), nbytes=nbytes)


def _parts(
    version: int, name: CodecName, tensors: Mapping[str, Array], *, schema1: bool
) -> tuple[bytes, bytes]:
    """Return a frame without its payloads, and the payloads."""
    layout, payloads = codec.encode(name, tensors)
    if schema1:
        table = make_table(name, layout)
        return pack(Adapter(version=version, codec=name, tensors=table)), payloads
    listing = layout.to_bytes()
    header = Adapter(version=version, codec=name, layout=layout.digest, layout_bytes=len(listing))
    return pack(header, listing), payloads


def unpack_adapter(frame: bytes | memoryview) -> tuple[Adapter, Tensors]:
    """Return the header and the tensors of a frame of either schema.

    Raises:
        WireError: The bytes are not such a frame.
    """
    header, data = unpack(Adapter, frame)
    layout, payloads = _split(header, data)
    return header, codec.decode(header.codec, layout, payloads)


def _split(header: Adapter, data: memoryview) -> tuple[TensorLayout, memoryview]:
    if header.tensors is not None:
        return layout_of(header.codec, header.tensors), data
    assert header.layout_bytes is not None  # the record is validated
    listing = data[: header.layout_bytes]
    if len(listing) < header.layout_bytes or codec.digest(listing) != header.layout:
        raise WireError("size or digest of the tensor layout differ from the header")
    return TensorLayout.from_bytes(listing), data[header.layout_bytes :]
