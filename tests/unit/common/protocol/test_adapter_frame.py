"""Frames of adapters in both schemas; the older one is that of the previous release."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import WireError
from common.protocol.adapter_frame import pack_adapter, unpack_adapter
from common.protocol.codec import digest
from common.protocol.fields import CodecName
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from common.protocol.updates import TensorEntry
from common.protocol.versions import Adapter
from common.protocol.wire import pack, unpack

THETA: Tensors = {
    "z.lora_B": np.full((3, 2), 1 + 2**-9, np.float32),
    "a.lora_A": np.arange(6, dtype=np.float32).reshape(2, 3),
}
# What the release before schema 2 made of THETA as version 3, in bf16.
SCHEMA_1 = bytes.fromhex(
    "4643434c017700000092a74164617074657283a776657273696f6e03a5636f646563a462663136a774656e736f7273"
    "9284a46e616d65a8612e6c6f72615f41a57368617065920203a66f666673657400a66e62797465730c84a46e616d65"
    "a87a2e6c6f72615f42a57368617065920302a66f66667365740ca66e62797465730c0000803f004040408040a040"
    "803f803f803f803f803f803f"
)


@pytest.mark.parametrize("name", get_args(CodecName))
@pytest.mark.parametrize("tabled", [False, True])
def test_an_adapter_survives_the_round_trip(name: CodecName, tabled: bool) -> None:
    frame = pack_adapter(3, name, THETA, schema1=tabled)
    header, found = unpack_adapter(frame)
    assert (header.version, header.codec, frame[4]) == (3, name, 1 if tabled else 2)
    assert pack_adapter(3, name, found, schema1=tabled) == frame or name in ("int8", "int4")
    assert list(found) == ["a.lora_A", "z.lora_B"]
    if name == "fp32":
        assert all(np.array_equal(found[key], THETA[key]) for key in THETA)


def test_an_adapter_of_schema_1_has_the_bytes_that_the_journal_has_the_digest_of() -> None:
    assert pack_adapter(3, "bf16", THETA, schema1=True) == SCHEMA_1
    header, found = unpack_adapter(SCHEMA_1)
    assert header.version == 3 and np.array_equal(found["a.lora_A"], THETA["a.lora_A"])


def test_the_header_stays_small_however_many_tensors_there_are() -> None:
    tensors = {f"layers.{i}.lora_A.weight": np.zeros(1, np.float32) for i in range(8192)}
    frame = pack_adapter(0, "fp32", tensors)
    _, data = unpack(Adapter, frame)
    assert len(frame) - len(data) < 300
    assert len(unpack_adapter(frame)[1]) == 8192


def listing(text: bytes, payloads: bytes, **changed: object) -> bytes:
    header = Adapter(version=0, codec="fp32", layout=digest(text), layout_bytes=len(text))
    return pack(header.model_copy(update=changed), text, payloads)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (listing(b"a 2\n", bytes(8), layout="0" * 64), "digest"),
        (listing(b"a 2\n", bytes(8), layout_bytes=3), "digest"),
        (listing(b"a 2\n", b"", layout_bytes=99), "digest"),
        (listing(b"a 02\n", bytes(8)), "canonical"),
        (listing(b"a 2", bytes(8)), "canonical"),
        (listing(b"a 2\n", bytes(9)), "9 bytes, not 8"),
        (listing(b"a 2147483648\n", bytes(8)), "8 bytes"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(frame: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        unpack_adapter(frame)


def entry(size: int, nbytes: int, offset: int = 0, name: str = "a") -> TensorEntry:
    return TensorEntry(name=name, shape=(size,), offset=offset, nbytes=nbytes)


@pytest.mark.parametrize(
    ("table", "data", "reason"),
    [
        ((entry(1, 4), entry(1, 4, 4)), bytes(8), "appears twice"),
        ((entry(1, 4, 4),), bytes(8), "do not follow"),
        ((entry(2, 4),), bytes(4), "do not follow"),
        ((entry(2**31, 4),), bytes(4), "do not follow"),
        ((entry(1, 4), entry(1, 4, 0, "b")), bytes(4), "do not follow"),
        ((entry(2, 8),), bytes(4), "4 bytes, not 8"),
        ((entry(1, 4),), bytes(5), "5 bytes, not 4"),
        ((TensorEntry(name="a", shape=(2**31,) * 8, offset=0, nbytes=4),), bytes(4), "not follow"),
        ((entry(1, 4, name="\x1b]0;x\n" * 40),), bytes(4), "not printable"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    table: tuple[TensorEntry, ...], data: bytes, reason: str
) -> None:
    with pytest.raises(WireError, match=reason) as caught:
        unpack_adapter(pack(Adapter(version=0, codec="fp32", tensors=table), data))
    assert caught.value.what.isprintable() and len(caught.value.what) < 200


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_random_layouts_and_payloads_raise_wire_errors_only(text: bytes, payloads: bytes) -> None:
    try:
        unpack_adapter(listing(text, payloads))
    except WireError:
        return
    assert TensorLayout.from_bytes(text).to_bytes() == text


@given(st.sampled_from([False, True]), st.data())
def test_a_mutated_frame_is_an_adapter_or_a_wire_error(tabled: bool, data: st.DataObject) -> None:
    mutated = bytearray(pack_adapter(3, "bf16", THETA, schema1=tabled))
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    with np.errstate(all="ignore"):
        try:
            unpack_adapter(bytes(mutated))
        except WireError:
            return
