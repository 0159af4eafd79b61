"""Records that become items, records that are refused, and equality of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.protocol.fields import RowKind
from tests.support.item_records import FIELD_NAMES, JSON
from worker.incremental.inbox.items import FIELDS, Item, parse

SECRET = "my neighbour's secret"
LABELS = ("negative", "positive")


def take(record: Mapping[str, object], *kinds: RowKind, chars: int = 100) -> Item:
    return parse(record, max_chars=chars, labels=LABELS, kinds=kinds)


@pytest.mark.parametrize(
    ("record", "kind", "fields"),
    [
        ({"text": "x", "label": "positive"}, "cls", ("x", "positive")),
        ({"Review": "x", "sentiment": "positive", "stars": 5}, "cls", ("x", "positive")),
        ({"instruction": "a", "response": "b"}, "sft", ("a", "", "b")),
        ({"question": "a", "context": "c", "answer": "b", "category": "q"}, "sft", ("a", "c", "b")),
        ({"instruction": "a", "output": "b", "text": "both"}, "sft", ("a", "", "b")),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "answer": "d"}, "va", ("a", "b", "c")),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "sft",
            ("a", "", "b"),
        ),
    ],
)
def test_the_fields_of_a_record_decide_the_kind_of_the_item(
    record: dict[str, object], kind: RowKind, fields: tuple[str, ...]
) -> None:
    assert take(record) == Item(kind, dict(zip(FIELDS[kind], fields, strict=True)), "feedback")


@pytest.mark.parametrize(
    ("record", "kinds", "says"),
    [
        (
            {"text": "x", "label": SECRET},
            (),
            "not a class of this run; use one of negative, positive",
        ),
        ({"text": SECRET}, ("cls",), "label is missing"),
        ({"text": "  ", "label": "positive"}, (), "text is empty"),
        ({"text": SECRET, "label": "positive", "n": 1}, ("sft", "va"), "this run does not learn"),
        (
            {"prompt": SECRET, "answer": SECRET},
            ("cls",),
            "does not learn; give text and label",
        ),
        ({"prompt": SECRET, "chosen": SECRET}, (), "rejected is missing"),
        ({"prompt": SECRET, "chosen": "a", "rejected": " a"}, (), "chosen and rejected are equal"),
        ({SECRET: SECRET}, (), "none of the fields of an item; give prompt, chosen"),
        ({}, (), "none of the fields of an item"),
        ({"text": SECRET * 5, "label": "positive"}, (), "more than 100"),
        ({"text": SECRET * 5000, "label": "positive"}, (), "more than 32768"),
        ({"text": [SECRET], "label": "positive"}, (), "text is not text"),
        ({"text": "\ud800" + SECRET, "label": "positive"}, (), "not valid UTF-8"),
        ({"text": SECRET, "label": float("nan")}, (), "label is not text"),
    ],
)
def test_an_invalid_record_is_refused_with_a_reason_that_does_not_contain_it(
    record: dict[str, object], kinds: tuple[RowKind, ...], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        take(record, *kinds)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_name_of_a_stream_is_safe_everywhere() -> None:
    record = {"text": "x", "label": "positive"}
    assert parse(record, max_chars=9, task="ward-3").task == "ward-3"
    for bad in ("", "two words", "../up", "x" * 65, "a\n"):
        with pytest.raises(DataError, match="the task is not a valid name"):
            parse(record, max_chars=9, task=bad)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(str.strip)


@given(st.dictionaries(st.sampled_from(FIELD_NAMES) | st.text(max_size=8), JSON, max_size=6))
def test_any_record_becomes_an_item_or_is_refused(record: dict[str, object]) -> None:
    try:
        item = take(record)
    except DataError:
        return
    assert tuple(item.fields) == FIELDS[item.kind]
    assert take(item.fields) == item, "the fields of an item parse to the same item"


@given(TEXT, TEXT, TEXT, TEXT)
def test_keys_identify_equal_items_and_equal_inputs(
    question: str, first: str, second: str, other: str
) -> None:
    item = Item("cls", {"text": question, "label": first})
    same = Item("cls", {"text": f"\n{question} ", "label": f" {first}"}, "another-task")
    assert (item.key, item.input_key) == (same.key, same.input_key)
    answered = replace(item, fields={"text": question, "label": second})
    assert answered.input_key == item.input_key
    assert (answered.key == item.key) == (first.strip() == second.strip())
    elsewhere = replace(item, fields={"text": other, "label": first})
    assert (elsewhere.input_key == item.input_key) == (question.strip() == other.strip())

    pair = Item("va", {"prompt": question, "chosen": first, "rejected": second})
    turned = Item("va", {"prompt": question, "chosen": second, "rejected": first})
    assert pair.input_key == turned.input_key, "the same two answers"
    third = Item("va", {"prompt": question, "chosen": first, "rejected": other})
    assert (third.input_key == pair.input_key) == (other.strip() == second.strip()), "other answers"
