"""Encoding of tensors as payload bytes, and decoding.

The payload size of every codec follows from the shape alone, so the size of hostile input is
checked before anything is allocated. Relative errors on Gaussian values (own measurement,
docs/algorithms.md): bf16 0.2 %, int8 0.6 %, int4 11 %, topk (a tenth) 75 %. The last two need error
feedback (`worker/error_feedback.py`) and are sound only where deltas are averaged linearly.

In an update's path: `worker/trainer.py` → here → `worker/spool.py`, and on the other side
`coordinator/ingest/ingest.py` → here → `coordinator/core/admission.py`.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import WireError
from common.protocol.fields import CodecName
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors

BLOCK = 64  # values that share one scale in int8 and int4
TOPK_FRACTION = 0.1
BytesLike = bytes | memoryview


def encode(codec: CodecName, tensors: Mapping[str, Array]) -> tuple[TensorLayout, bytes]:
    """Return the tensors' layout, and their payloads concatenated in its order.

    Raises:
        ValueError: A tensor contains NaN or infinity.
        WireError: A limit of `TensorLayout` is exceeded.
    """
    layout, payloads = TensorLayout.of(tensors), io.BytesIO()
    for name, _ in layout.tensors:
        tensor = tensors[name]
        if not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} has values that are not finite")
        payloads.write(_CODECS[codec].encode(np.ascontiguousarray(tensor, np.float32).ravel()))
    return layout, payloads.getvalue()  # not a copy, unlike joining parts


def decode(codec: CodecName, layout: TensorLayout, data: BytesLike) -> Tensors:
    """Return the float32 tensors that were passed to `encode`, up to the codec's rounding.

    Raises:
        WireError: The size of the data does not follow from the layout (checked before anything is
            allocated), or an index is outside its tensor.
    """
    return Tensors(decode_each(codec, layout, data))


def decode_each(
    codec: CodecName, layout: TensorLayout, data: BytesLike
) -> Iterator[tuple[str, Array]]:
    """Yield the name and the values of one tensor after another; raise as `decode` does."""
    if len(data) != (expected := payload_bytes(codec, layout)):
        raise WireError(
            f"the tensors have {len(data)} bytes, not {expected} as their shapes require"
        )
    view, offset = memoryview(data), 0
    for name, shape in layout.tensors:
        size = math.prod(shape)
        end = offset + tensor_bytes(codec, size)
        yield name, _CODECS[codec].decode(view[offset:end], size).reshape(shape)
        offset = end


def payload_bytes(codec: CodecName, layout: TensorLayout) -> int:
    """Return the size of all payloads of a layout."""
    return sum(tensor_bytes(codec, math.prod(shape)) for _, shape in layout.tensors)


def tensor_bytes(codec: CodecName, size: int) -> int:
    """Return the size of the payload of a tensor with `size` values."""
    return _CODECS[codec].nbytes(size)


def digest(data: BytesLike) -> str:
    """Return the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


class _Codec(NamedTuple):
    nbytes: Callable[[int], int]  # number of values → payload bytes
    encode: Callable[[Array], bytes]  # (n,) → payload
    decode: Callable[[BytesLike, int], Array]  # payload, n → (n,)


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _scaled(flat: Array, top: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return absmax scales (blocks,) and integers in [-top, top] (blocks, BLOCK)."""
    padded = np.zeros(_blocks(flat.size) * BLOCK, np.float32)
    padded[: flat.size] = flat
    rows = padded.reshape(-1, BLOCK)
    scales = (np.abs(rows).max(axis=1) / top).astype(np.float32)
    safe = np.where(scales > 0, scales, np.float32(1))
    values = np.clip(np.rint(rows / safe[:, None]), -top, top).astype(np.int8)
    return scales, values


def _unscaled(scales: Array, values: NDArray[Any], size: int) -> Array:
    rows = values.reshape(-1, BLOCK).astype(np.float32) * scales[:, None]
    return np.ascontiguousarray(rows.ravel()[:size])


def _fp32_decode(data: BytesLike, size: int) -> Array:
    return np.frombuffer(data, "<f4", size).astype(np.float32)


def _bf16_encode(flat: Array) -> bytes:
    bits = flat.view(np.uint32)
    # Round to nearest, ties to even, on the upper 16 bits.
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype("<u2").tobytes()


def _bf16_decode(data: BytesLike, size: int) -> Array:
    upper = np.frombuffer(data, "<u2", size).astype(np.uint32)
    return (upper << np.uint32(16)).view(np.float32)


def _int8_encode(flat: Array) -> bytes:
    scales, values = _scaled(flat, 127)
    return scales.astype("<f4").tobytes() + values.tobytes()


def _int8_decode(data: BytesLike, size: int) -> Array:
    blocks = _blocks(size)
    scales = np.frombuffer(data, "<f4", blocks).astype(np.float32)
    return _unscaled(scales, np.frombuffer(data, np.int8, offset=4 * blocks), size)


def _int4_encode(flat: Array) -> bytes:
    scales, values = _scaled(flat, 7)
    nibbles = (values.ravel() + 8).astype(np.uint8)
    return scales.astype("<f4").tobytes() + (nibbles[::2] | (nibbles[1::2] << 4)).tobytes()


def _int4_decode(data: BytesLike, size: int) -> Array:
    blocks = _blocks(size)
    scales = np.frombuffer(data, "<f4", blocks).astype(np.float32)
    packed = np.frombuffer(data, np.uint8, offset=4 * blocks)
    values = np.empty(2 * packed.size, np.int16)
    values[::2], values[1::2] = packed & 15, packed >> 4
    return _unscaled(scales, values - 8, size)


def _kept(size: int) -> int:
    return max(1, math.ceil(TOPK_FRACTION * size))


def _topk_encode(flat: Array) -> bytes:
    kept = _kept(flat.size)
    indices = np.sort(np.argpartition(np.abs(flat), flat.size - kept)[flat.size - kept :])
    return indices.astype("<u4").tobytes() + flat[indices].astype("<f4").tobytes()


def _topk_decode(data: BytesLike, size: int) -> Array:
    kept = _kept(size)
    indices = np.frombuffer(data, "<u4", kept).astype(np.int64)
    if indices[-1] >= size or (np.diff(indices) <= 0).any():
        raise WireError("topk indices are not increasing within the tensor")
    flat = np.zeros(size, np.float32)
    flat[indices] = np.frombuffer(data, "<f4", kept, offset=4 * kept)
    return flat


_CODECS: dict[CodecName, _Codec] = {
    "fp32": _Codec(lambda n: 4 * n, lambda flat: flat.astype("<f4").tobytes(), _fp32_decode),
    "bf16": _Codec(lambda n: 2 * n, _bf16_encode, _bf16_decode),
    "int8": _Codec(lambda n: _blocks(n) * (4 + BLOCK), _int8_encode, _int8_decode),
    "int4": _Codec(lambda n: _blocks(n) * (4 + BLOCK // 2), _int4_encode, _int4_decode),
    "topk": _Codec(lambda n: 8 * _kept(n), _topk_encode, _topk_decode),
}
