"""Tensor layouts: one canonical form for each, and nothing but `WireError` for anything else."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import WireError
from common.protocol.layout import MAX_LAYOUT_BYTES, MAX_TENSORS, TensorLayout

TEXT = b"a.lora_A.weight 4x32\na.lora_B.weight 32x4\nscale \n"
LAYOUT = TensorLayout((("a.lora_A.weight", (4, 32)), ("a.lora_B.weight", (32, 4)), ("scale", ())))
names = st.text(min_size=1, max_size=20).filter(str.isprintable)
shapes = st.lists(st.integers(1, 2**31), max_size=8).map(tuple)
layouts = st.dictionaries(names, shapes, max_size=20).map(
    lambda found: TensorLayout(tuple(sorted(found.items())))
)


def test_the_canonical_form_is_a_sorted_line_per_tensor() -> None:
    assert LAYOUT.to_bytes() == TEXT
    assert LAYOUT.digest == hashlib.sha256(TEXT).hexdigest()
    assert TensorLayout.from_bytes(memoryview(TEXT)) == LAYOUT


def test_the_layout_of_tensors_does_not_depend_on_their_order() -> None:
    tensors = {name: np.zeros(shape, np.float32) for name, shape in reversed(LAYOUT.tensors)}
    assert TensorLayout.of(tensors) == LAYOUT


@given(layouts)
def test_a_layout_survives_the_round_trip(layout: TensorLayout) -> None:
    assert TensorLayout.from_bytes(layout.to_bytes()) == layout


@given(layouts, layouts)
def test_equal_digests_mean_equal_layouts(one: TensorLayout, other: TensorLayout) -> None:
    assert (one.digest == other.digest) == (one == other)


@pytest.mark.parametrize(
    "bad",
    [
        b"a 1",  # no line break at the end
        b"\n",
        b"a\n",
        b" 1\n",
        b"b 1\na 1\n",
        b"a 1\na 1\n",
        b"a 01\n",
        b"a +1\n",
        b"a 1_0\n",
        b"a -1\n",
        b"a 0\n",
        b"a 1x\n",
        b"a 1.0\n",
        "a ١\n".encode(),  # an Arabic digit, which `int` accepts
        b"a 2147483649\n",
        b"a " + b"9" * 5000 + b"\n",
        b"a " + b"x".join([b"1"] * 9) + b"\n",
        b"a\x1b]0; 1\n",
        b"a\r 1\n",
        b"a\x00 1\n",
        b"\xff 1\n",
        b"n" * 301 + b" 1\n",
        b"a 1\n\n",
        b"a 1\nb 1",
    ],
)
def test_another_form_is_refused(bad: bytes) -> None:
    with pytest.raises(WireError) as caught:
        TensorLayout.from_bytes(bad)
    assert caught.value.what.isprintable() and len(caught.value.what) < 300


@given(st.binary(max_size=200))
def test_random_bytes_are_a_layout_or_a_wire_error(junk: bytes) -> None:
    with contextlib.suppress(WireError):
        assert TensorLayout.from_bytes(junk).to_bytes() == junk


@given(layouts, st.data())
def test_a_mutated_layout_is_another_one_or_a_wire_error(
    layout: TensorLayout, data: st.DataObject
) -> None:
    mutated = bytearray(layout.to_bytes() or b"\n")
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = TensorLayout.from_bytes(bytes(mutated))
    except WireError:
        return
    assert found.to_bytes() == bytes(mutated)


def many(count: int, name: str = "t") -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((f"{name}{i:05}", (1,)) for i in range(count))


def test_more_than_8192_tensors_are_refused() -> None:
    assert len(TensorLayout(many(MAX_TENSORS))) == 8192
    with pytest.raises(WireError, match="8193 tensors"):
        TensorLayout(many(8193))
    with pytest.raises(WireError, match="tensors is over the limit"):
        TensorLayout.from_bytes(b"\n" * MAX_LAYOUT_BYTES)


def test_a_layout_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(WireError, match="bytes"):
        TensorLayout(many(MAX_TENSORS, "n" * 280))
    with pytest.raises(WireError, match="bytes"):
        TensorLayout.from_bytes(bytes(MAX_LAYOUT_BYTES + 1))


def test_8192_tensors_with_names_of_200_characters_fit() -> None:
    layout = TensorLayout(many(MAX_TENSORS, "n" * 195))
    assert TensorLayout.from_bytes(layout.to_bytes()) == layout


@pytest.mark.parametrize("tensors", [(("b", (1,)), ("a", (1,))), (("a", (1,)), ("a", (2,)))])
def test_names_are_sorted_and_appear_once(
    tensors: tuple[tuple[str, tuple[int, ...]], ...],
) -> None:
    with pytest.raises(WireError, match="sorted"):
        TensorLayout(tensors)
