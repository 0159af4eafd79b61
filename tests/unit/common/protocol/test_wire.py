"""Frames survive the round trip; whatever else arrives is a `WireError` and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import WireError
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import Receipt, TaskRefusal, TrainTask
from common.protocol.updates import Update
from common.protocol.wire import MAX_HEADER, SCHEMAS, kind_of, pack, unpack
from tests.support.records import EXAMPLES, RECEIPT, SCHEMA_1, SHA, TASK, UPDATE

Header = Callable[[object], bytes]
FIELDS = {"task_id": "t1", "attempt": 1, "state": "accepted", "reason": ""}


def raw(header: bytes, data: bytes = b"", magic: bytes = b"FCCL", schema: int = 1) -> bytes:
    return struct.pack("<4sBI", magic, schema, len(header)) + header + data


def frame(header: object, schema: int = 1) -> bytes:
    return raw(msgpack.packb(header), schema=schema)


def refused(bad: bytes, kind: type[Record] = Receipt) -> str:
    with pytest.raises(WireError) as caught:
        unpack(kind, bad)
    assert "\n" not in caught.value.what
    return caught.value.what


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_every_record_and_its_data_survive_the_round_trip(record: Record) -> None:
    found, data = unpack(type(record), pack(record, b"tensors"))
    assert (found, bytes(data)) == (record, b"tensors")
    assert kind_of(pack(record)) == type(record).__name__


def test_the_frame_of_a_receipt_byte_by_byte() -> None:
    assert frame(["Receipt", FIELDS]) == pack(Receipt.model_validate(FIELDS))
    assert pack(RECEIPT)[:5] == b"FCCL\x01"


@pytest.mark.parametrize("length", range(len(pack(RECEIPT))))
def test_a_frame_cut_anywhere_is_refused(length: int) -> None:
    refused(pack(RECEIPT)[:length])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "too short"),
        (raw(b"", magic=b"EVIL"), "not an fccl frame"),
        (raw(msgpack.packb(["Receipt", FIELDS]), schema=2), "schema version of Receipt is 2"),
        (raw(msgpack.packb(["Receipt", FIELDS]), schema=0), "schema version is 0"),
        (raw(msgpack.packb(["Receipt", FIELDS]), schema=3), "schema version is 3"),
        (raw(b"\xc1"), "not msgpack"),
        (frame(["Receipt", FIELDS])[:-1], "cut short"),
        (raw(msgpack.packb(["Receipt", FIELDS]) + b"\x00"), "not msgpack"),
        (frame(["Heartbeat", FIELDS]), "expected Receipt"),
        (frame([["Receipt"], FIELDS]), "expected Receipt"),
        (frame({"Receipt": FIELDS}), "pair"),
        (frame(["Receipt", FIELDS, 3]), "pair"),
        (frame(["Receipt", None]), "record"),
        (frame(["Receipt", [1, 2]]), "record"),
    ],
)
def test_other_bytes_than_a_frame_of_the_record_are_refused(bad: bytes, reason: str) -> None:
    assert reason in refused(bad)


@pytest.mark.parametrize("name", ["task_id", "attempt", "state"])
def test_a_missing_field_is_named(name: str) -> None:
    fields = {key: value for key, value in FIELDS.items() if key != name}
    assert name in refused(frame(["Receipt", fields]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_id", 7),
        ("task_id", b"t1"),
        ("task_id", "../../etc/passwd"),
        ("task_id", "t1\n"),
        ("task_id", "t" * 65),
        ("attempt", "1"),
        ("attempt", 1.0),
        ("attempt", True),
        ("attempt", -1),
        ("attempt", 2**63),
        ("state", "maybe"),
        ("reason", "x" * 501),
        ("reason", None),
        ("surprise", 1),
    ],
)
def test_a_field_of_the_wrong_type_or_name_is_named(name: str, value: object) -> None:
    assert name in refused(frame(["Receipt", {**FIELDS, name: value}]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 2e4])
def test_a_loss_is_finite_positive_and_bounded(value: float) -> None:
    schema, fields = parts(UPDATE)
    fields["stats"]["avg_loss"] = value
    assert "stats.avg_loss" in refused(frame(["Update", fields], schema), Update)


@pytest.mark.parametrize("name", ["train_seconds", "delta_norm"])
def test_other_statistics_are_finite(name: str) -> None:
    schema, fields = parts(UPDATE)
    for value in (float("nan"), float("inf")):
        fields["stats"][name] = value
        assert name in refused(frame(["Update", fields], schema), Update)


# schema versions


def parts(record: Record) -> tuple[int, dict[str, Any]]:
    """Return the schema version and the fields of a packed record."""
    packed = pack(record)
    _, schema, length = struct.unpack_from("<4sBI", packed)
    name, fields = msgpack.unpackb(packed[9 : 9 + length])
    assert name == type(record).__name__
    return schema, fields


@pytest.mark.parametrize("record", SCHEMA_1, ids=lambda record: type(record).__name__)
def test_a_record_of_the_older_form_is_written_without_newer_fields(record: Record) -> None:
    schema, fields = parts(record)
    assert schema == 1
    assert not {"layout", "layout_bytes", "prompt"} & fields.keys()


def test_kinds_that_have_not_changed_keep_schema_1() -> None:
    changed = {type(record) for record in SCHEMA_1}
    others = [record for record in EXAMPLES if type(record) not in changed]
    assert {parts(record)[0] for record in others} == {1}
    newer = [record for record in EXAMPLES if type(record) in changed and record not in SCHEMA_1]
    assert {parts(record)[0] for record in newer} == {2}
    assert all("tensors" not in parts(record)[1] for record in newer)


@pytest.mark.parametrize(
    ("record", "schema", "more"),
    [
        (UPDATE, 2, {"tensors": []}),
        (SCHEMA_1[0], 1, {"layout": SHA}),
        (SCHEMA_1[1], 1, {"prompt": None}),
    ],
)
def test_a_field_of_another_schema_version_is_refused(
    record: Record, schema: int, more: dict[str, object]
) -> None:
    bad = frame([type(record).__name__, parts(record)[1] | more], schema)
    assert f"in schema version {schema}" in refused(bad, type(record))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_an_update_has_a_layout_or_a_table(schema: int) -> None:
    _, fields = parts(UPDATE)
    del fields["layout"]
    assert "either a layout or a table" in refused(frame(["Update", fields], schema), Update)


def test_the_header_of_an_update_has_a_few_hundred_bytes() -> None:
    assert len(pack(UPDATE)) < 600 and len(pack(TASK)) < 1200


def test_a_repeated_key_is_refused() -> None:
    pairs = b"\x82" + (msgpack.packb("state") + msgpack.packb("accepted")) * 2
    assert "repeats a key" in refused(raw(b"\x92" + msgpack.packb("Receipt") + pairs))


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four billion
        b"\xdf\xff\xff\xff\xff",  # a map of four billion
        b"\xc6\xff\xff\xff\xff",  # four billion bytes
        b"\xdb\xff\xff\xff\xff",  # a text of as many
        b"\x91" * 60_000 + b"\x90",  # nested beyond any depth
        b"\x81\x90\x90",  # a list as a key
        msgpack.packb([[]] * 5000),
        msgpack.packb("x" * 5000),
        msgpack.packb({str(i): i for i in range(65)}),
        msgpack.packb(msgpack.ExtType(5, b"x")),
        msgpack.packb(msgpack.Timestamp(0)),
        b"\xa1\xff",  # no UTF-8
    ],
)
def test_a_header_that_would_expand_is_refused_before_it_is_allocated(header: bytes) -> None:
    refused(raw(header))


def test_a_header_over_the_limit_is_neither_read_nor_written() -> None:
    assert "above the limit" in refused(raw(b"\xc0" * (MAX_HEADER + 1)))
    long = ["c" * 60 + f"{i:04}" for i in range(2000)]
    heartbeat = Heartbeat(worker_id="w", site="local", state="waiting", clients=tuple(long))
    with pytest.raises(WireError, match="more than 65536"):
        pack(heartbeat)


def test_reasons_do_not_repeat_hostile_values_at_length() -> None:
    assert len(refused(frame(["x" * 4000, {}]))) < 200
    assert len(refused(frame(["Receipt", {**FIELDS, "state": "y" * 4000}]))) < 200


@given(
    st.binary(max_size=300), st.sampled_from([Receipt, Update, TrainTask, Heartbeat, TaskRefusal])
)
def test_random_bytes_raise_wire_errors_only(junk: bytes, kind: type[Record]) -> None:
    for bad in (junk, raw(junk), raw(junk, schema=2), b"FCCL\x01" + junk, b"FCCL\x02" + junk):
        with pytest.raises(WireError):
            unpack(kind, bad)


@given(st.data())
def test_a_mutated_frame_is_valid_or_a_wire_error(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(EXAMPLES))
    mutated = bytearray(pack(record, b"12345678"))
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    try:
        found, _ = unpack(type(record), bytes(mutated))
    except WireError:
        return
    pack(found)  # what passes is whole


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_other_header_than_the_records_is_refused(header: object) -> None:
    refused(frame(header))
    refused(frame(["Receipt", header]))
    refused(frame(["Receipt", {**FIELDS, "task_id": header}])) if not isinstance(
        header, str
    ) else None
