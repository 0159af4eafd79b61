"""Payload codecs: exact bytes, error bounds, and hostile payloads."""

from __future__ import annotations

import struct
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from common.errors import WireError
from common.protocol.codec import BLOCK, decode, digest, encode, payload_bytes
from common.protocol.fields import CodecName
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array

CODECS: tuple[CodecName, ...] = get_args(CodecName)
deltas = arrays.arrays(
    np.float32,
    arrays.array_shapes(max_dims=3, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


def array(*values: float) -> Array:
    return np.array(values, np.float32)


def one(*shape: int) -> TensorLayout:
    return TensorLayout((("a", shape),))


def there_and_back(codec: CodecName, tensor: Array) -> Array:
    return decode(codec, *encode(codec, {"a": tensor}))["a"]


# exact bytes


def test_fp32_is_little_endian_floats() -> None:
    _, data = encode("fp32", {"a": array(1.0, -2.0)})
    assert data == struct.pack("<2f", 1.0, -2.0)


def test_bf16_is_the_upper_half_rounded_to_even() -> None:
    # 1 + 2⁻⁸ lies halfway between 1 and 1 + 2⁻⁷: even wins; a little more goes up.
    _, data = encode("bf16", {"a": array(1.0, 1 + 2**-8, 1 + 2**-8 + 2**-16, 1 + 3 * 2**-8)})
    assert data == struct.pack("<4H", 0x3F80, 0x3F80, 0x3F81, 0x3F82)


def test_int8_has_one_scale_per_block_and_multiples_of_it() -> None:
    _, data = encode("int8", {"a": array(127.0, -127.0, 1.0, 0.4)})
    assert data[:4] == struct.pack("<f", 1.0)
    assert data[4:8] == struct.pack("<4b", 127, -127, 1, 0)
    assert data[8:] == bytes(60)


def test_int4_packs_two_values_into_a_byte_the_first_into_the_low_bits() -> None:
    _, data = encode("int4", {"a": array(7.0, -7.0, 3.0)})
    assert data[:4] == struct.pack("<f", 1.0)
    assert data[4:6] == bytes([15 | (1 << 4), 11 | (8 << 4)])


def test_topk_keeps_the_largest_tenth_with_its_indices() -> None:
    tensor = array(*[0.1] * 18, -9.0, 5.0)
    _, data = encode("topk", {"a": tensor})
    assert data == struct.pack("<2I2f", 18, 19, -9.0, 5.0)
    assert np.count_nonzero(there_and_back("topk", tensor)) == 2


def test_a_blocks_outlier_does_not_coarsen_the_next_block() -> None:
    tensor = np.concatenate([np.full(BLOCK, 1000.0), np.full(BLOCK, 0.5)]).astype(np.float32)
    assert there_and_back("int8", tensor)[BLOCK:] == pytest.approx(0.5)


# sizes


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(), (1,), (63,), (64,), (65,), (7, 9), (2, 3, 11)])
def test_the_size_of_a_payload_follows_from_the_shapes(
    codec: CodecName, shape: tuple[int, ...]
) -> None:
    tensors = {"a": np.ones(shape, np.float32), "b": np.ones(3, np.float32)}
    layout, data = encode(codec, tensors)
    assert layout == TensorLayout((("a", shape), ("b", (3,))))
    assert len(data) == payload_bytes(codec, layout)
    assert {k: v.shape for k, v in decode(codec, layout, data).items()} == {"a": shape, "b": (3,)}


@pytest.mark.parametrize("codec", CODECS)
def test_payloads_follow_in_the_order_of_the_layout(codec: CodecName) -> None:
    tensors = {"b": array(1, 2), "a": array(3)}
    assert encode(codec, tensors) == encode(codec, dict(sorted(tensors.items())))
    assert encode(codec, tensors)[1].startswith(encode(codec, {"a": array(3)})[1])


@pytest.mark.parametrize("codec", CODECS)
def test_an_empty_tensor_is_refused(codec: CodecName) -> None:
    with pytest.raises(WireError, match="shape"):
        encode(codec, {"a": np.zeros((0, 3), np.float32)})


@pytest.mark.parametrize("codec", CODECS)
def test_no_tensors_are_no_bytes(codec: CodecName) -> None:
    assert encode(codec, {}) == (TensorLayout(()), b"")
    assert decode(codec, TensorLayout(()), b"") == {}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named_and_refused(codec: CodecName, value: float) -> None:
    with pytest.raises(ValueError, match="tensor b has values that are not finite"):
        encode(codec, {"a": array(1), "b": array(1, value)})


# error bounds


@given(deltas)
def test_fp32_is_exact(tensor: Array) -> None:
    assert np.array_equal(there_and_back("fp32", tensor), tensor)


@given(deltas)
def test_bf16_is_within_two_to_the_minus_eight(tensor: Array) -> None:
    error = np.abs(there_and_back("bf16", tensor).astype(np.float64) - tensor)
    assert (error <= np.abs(tensor) * 2.0**-8 + 1e-38).all()


@given(deltas, st.sampled_from([("int8", 127), ("int4", 7)]))
def test_blocks_are_within_half_a_step_of_their_largest(
    tensor: Array, kind: tuple[CodecName, int]
) -> None:
    codec, top = kind
    found = there_and_back(codec, tensor).astype(np.float64).ravel()
    flat = tensor.astype(np.float64).ravel()
    for start in range(0, flat.size, BLOCK):
        block, back = flat[start : start + BLOCK], found[start : start + BLOCK]
        assert np.abs(block - back).max() <= np.abs(block).max() / top * 0.501 + 1e-37


@given(deltas)
def test_topk_keeps_what_is_largest_exactly(tensor: Array) -> None:
    found, flat = there_and_back("topk", tensor).ravel(), tensor.ravel()
    kept = np.flatnonzero(found)
    assert np.array_equal(found[kept], flat[kept])
    left = np.delete(np.abs(flat), kept)
    if kept.size and left.size:
        assert np.abs(found[kept]).min() >= left.max()


def test_the_errors_on_gaussian_values_are_the_documented_ones() -> None:
    tensor = np.random.default_rng(0).standard_normal(64_000).astype(np.float32)
    error = {
        codec: np.linalg.norm(there_and_back(codec, tensor) - tensor) / np.linalg.norm(tensor)
        for codec in CODECS
    }
    assert error["bf16"] < 0.002 and error["int8"] < 0.007
    assert error["int4"] == pytest.approx(0.11, abs=0.02)
    assert error["topk"] == pytest.approx(0.75, abs=0.02)


# hostile payloads


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("more", [-1, 1])
def test_the_size_of_the_data_must_follow_from_the_shapes(codec: CodecName, more: int) -> None:
    size = payload_bytes(codec, one(100)) + more
    with pytest.raises(WireError, match=f"have {size} bytes"):
        decode(codec, one(100), bytes(size))


def test_a_shape_beyond_memory_is_refused_by_its_size() -> None:
    for codec in CODECS:
        with pytest.raises(WireError):
            decode(codec, one(*[2**31] * 8), bytes(4))


@pytest.mark.parametrize("indices", [(3, 3), (5, 2), (0, 20), (0, 2**32 - 1)])
def test_topk_indices_increase_and_stay_inside(indices: tuple[int, int]) -> None:
    data = struct.pack("<2I2f", *indices, 1.0, 1.0)
    with pytest.raises(WireError, match="topk indices"):
        decode("topk", one(20), data)


@given(st.sampled_from(CODECS), st.integers(1, 200), st.data())
def test_any_payload_of_the_right_size_decodes_or_is_a_wire_error(
    codec: CodecName, size: int, data: st.DataObject
) -> None:
    nbytes = payload_bytes(codec, one(size))
    payload = data.draw(st.binary(min_size=nbytes, max_size=nbytes))
    with np.errstate(all="ignore"):
        try:
            found = decode(codec, one(size), payload)
        except WireError:
            assert codec == "topk"
            return
    assert found["a"].shape == (size,)


def test_the_digest_is_sha256() -> None:
    assert digest(memoryview(b"")) == digest(b"")
    assert digest(b"").startswith("e3b0c44298fc1c14")
