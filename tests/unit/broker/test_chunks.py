"""Splitting an update into messages, and parsing messages that may be hostile."""

from __future__ import annotations

import dataclasses
import hashlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.chunks import CHUNK_BYTES, MAX_UPDATE_BYTES, parse_chunk, split_update
from broker.protocol import Message
from common.errors import WireError
from tests.support.chunks import join_chunks

SIZE = 10
ID = "task-1.0"


def chunk(index: int = 0, /, **changed: str | int | None) -> Message:
    """Return one of the three messages of 25 bytes, with headers changed, or left out if None."""
    message = list(split_update(ID, bytes(range(25)), SIZE))[index]
    headers = {**message.headers, **changed}
    return dataclasses.replace(
        message, headers={name: value for name, value in headers.items() if value is not None}
    )


def test_an_update_of_25_bytes_makes_chunks_of_10_10_and_5() -> None:
    chunks = [parse_chunk(message, SIZE) for message in split_update(ID, bytes(range(25)), SIZE)]
    assert [(c.index, c.count, c.offset, len(c.data)) for c in chunks] == [
        (0, 3, 0, 10),
        (1, 3, 10, 10),
        (2, 3, 20, 5),
    ]
    assert {c.total_sha256 for c in chunks} == {hashlib.sha256(bytes(range(25))).hexdigest()}


def test_the_usual_chunk_is_8_mib() -> None:
    first, second = split_update(ID, bytes(CHUNK_BYTES + 1))
    assert (len(first.body), len(second.body)) == (8 << 20, 1)
    assert parse_chunk(second).offset == 8 << 20


@given(st.binary(min_size=1, max_size=100), st.integers(1, 101), st.randoms())
def test_any_order_and_repetition_gives_the_same_bytes(
    payload: bytes, size: int, random: Random
) -> None:
    messages = [*split_update(ID, payload, size)] * 2
    random.shuffle(messages)
    assert join_chunks(parse_chunk(message, size) for message in messages) == payload


def test_an_empty_update_cannot_be_sent() -> None:
    with pytest.raises(WireError):
        list(split_update(ID, b"", SIZE))


@pytest.mark.parametrize("name", ["../etc/passwd", "", "a/b", ".hidden", "x" * 129, "a\n"])
def test_an_update_id_is_a_label_and_never_a_path(name: str) -> None:
    with pytest.raises(WireError):
        list(split_update(name, b"x", SIZE))
    with pytest.raises(WireError, match="update_id"):
        parse_chunk(chunk(update_id=name), SIZE)


@pytest.mark.parametrize("name", sorted(chunk().headers))
def test_every_header_is_required_and_typed(name: str) -> None:
    with pytest.raises(WireError, match=f"{name} is missing"):
        parse_chunk(chunk(**{name: None}), SIZE)
    other: str | int = 1 if isinstance(chunk().headers[name], str) else "1"
    with pytest.raises(WireError, match=name):
        parse_chunk(chunk(**{name: other}), SIZE)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"chunk_index": 3}, "chunk_index is 3"),
        ({"chunk_index": -1}, "chunk_index is -1"),
        ({"chunk_count": 4}, "chunk_count is 4"),
        ({"chunk_count": 2**62}, "chunk_count"),
        ({"total_size": 0}, "total_size is 0"),
        ({"total_size": MAX_UPDATE_BYTES + 1}, "total_size"),
        ({"total_size": 2**63 - 1}, "total_size"),
        ({"total_size": 29, "chunk_index": 2}, "10 bytes instead of 9"),
        ({"chunk_index": 2}, "10 bytes instead of 5"),
        ({"chunk_sha256": "0" * 64}, "hash"),
        ({"chunk_sha256": "0" * 63}, "chunk_sha256"),
        ({"total_sha256": "G" * 64}, "total_sha256"),
    ],
)
def test_an_impossible_chunk_is_refused_with_its_reason(
    changed: dict[str, str | int], reason: str
) -> None:
    with pytest.raises(WireError, match=reason):
        parse_chunk(chunk(**changed), SIZE)


def test_a_body_that_is_not_what_its_hash_says_is_refused() -> None:
    with pytest.raises(WireError, match="hash"):
        parse_chunk(dataclasses.replace(chunk(), body=bytes(10)), SIZE)


def test_an_update_above_the_receivers_limit_is_refused() -> None:
    with pytest.raises(WireError, match="total_size is 25"):
        parse_chunk(chunk(), SIZE, max_update_bytes=24)


def test_a_reason_stays_short_whatever_the_header_says() -> None:
    with pytest.raises(WireError) as caught:
        parse_chunk(chunk(update_id="!" * 2000), SIZE)
    assert len(str(caught.value)) < 200


header_values = st.one_of(
    st.text(max_size=70).filter(lambda text: text.isprintable()),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-1, 4),
    st.sampled_from(["0" * 64, ID, hashlib.sha256(b"").hexdigest()]),
    st.none(),
)
header_names = st.sampled_from(sorted(chunk().headers))


@given(st.dictionaries(header_names, header_values), st.binary(max_size=12))
def test_a_hostile_message_is_refused_or_is_a_valid_chunk(
    changed: dict[str, str | int | None], body: bytes
) -> None:
    message = dataclasses.replace(chunk(**changed), body=body)
    try:
        parsed = parse_chunk(message, SIZE)
    except WireError:
        return
    assert 0 <= parsed.index < parsed.count
    assert parsed.offset + len(parsed.data) <= parsed.total_size
    assert hashlib.sha256(parsed.data).hexdigest() == parsed.sha256
