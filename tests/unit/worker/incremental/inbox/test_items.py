"""Records that become items, records that are refused, and equality of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data.row_types import (
    Conversation,
    Instruction,
    Message,
    PreferencePair,
    RatedAnswer,
)
from tests.support.conversations import SYSTEM, dialogue, turns
from tests.support.item_records import FIELD_NAMES, JSON
from worker.incremental.inbox.items import FIELDS, MESSAGES, Item
from worker.incremental.inbox.record_parser import parse

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
        ({"messages": dialogue("a", "b"), "tools": []}, "sft", ("a", "", "b")),
        ({"text": "x", "label": "positive", "turns": 3}, "cls", ("x", "positive")),
        ({"prompt": dialogue("a"), "chosen": "b", "rejected": "c"}, "va", ("a", "b", "c")),
        ({"prompt": "a", "completion": "b", "label": True}, "kto", ("a", "b", "good")),
        ({"question": "a", "answer": "b", "thumb": "down"}, "kto", ("a", "b", "bad")),
        ({"instruction": "a", "output": "b", "label": None}, "sft", ("a", "", "b")),
        ({"messages": dialogue("a", "b"), "label": 0}, "kto", ("a", "b", "bad")),
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
        ({"prompt": SECRET, "label": True}, (), "completion is missing"),
        ({"prompt": SECRET, "completion": " ", "label": True}, (), "completion is empty"),
        ({"prompt": SECRET, "completion": "b", "label": SECRET}, (), "neither good nor bad"),
        ({"prompt": SECRET, "completion": "b", "rating": 4}, (), "rating is neither good nor bad"),
        (
            {"prompt": SECRET, "completion": "b", "label": True},
            ("cls",),
            "a prompt with a rated answer, which this run does not learn; give text and label",
        ),
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


TALK = dialogue("a", "b", "c", "d")


def test_a_conversation_is_an_item_that_is_learned_with_all_its_turns() -> None:
    item = take({"messages": [SYSTEM, *TALK], "tools": [{"name": "kettle"}]})
    expected = Conversation(
        (Message("system", "Be kind."), *turns("a", "b", "c", "d")), '[{"name": "kettle"}]'
    )
    assert item.row == expected
    assert take(item.fields) == item
    assert item.question_and_answer == ("system: Be kind.\nuser: a\nassistant: b\nuser: c", "d")
    assert [text for _, text in item.texts()][:-1] == ["Be kind.", "a", "b", "c", "d"]


def test_a_preference_may_have_a_prompt_of_several_turns() -> None:
    item = take({"prompt": TALK[:3], "chosen": "x", "rejected": "y"})
    assert item.row == PreferencePair(turns("a", "b", "c"), "x", "y")
    whole = {"chosen": [*TALK[:3], *dialogue("", "x")[1:]]}
    whole["rejected"] = [*TALK[:3], *dialogue("", "y")[1:]]
    assert take(whole) == item == take(item.fields)
    assert item.question_and_answer == ("user: a\nassistant: b\nuser: c", "x")


def test_a_rated_answer_may_end_a_conversation() -> None:
    item = take({"messages": TALK, "label": False, "tools": [{"name": "kettle"}]})
    tools = '[{"name": "kettle"}]'
    assert item.row == RatedAnswer(turns("a", "b", "c"), "d", False, tools=tools)
    apart = {"prompt": TALK[:3], "completion": "d", "label": "bad", "tools": [{"name": "kettle"}]}
    assert take(apart) == item == take(item.fields)
    assert item.question_and_answer == ("user: a\nassistant: b\nuser: c", "d")
    assert [text for _, text in item.texts()] == ["a", "b", "c", tools, "d", "bad"]


def test_keys_of_ratings_identify_equal_ratings_and_rated_answers() -> None:
    for record in ({"prompt": "a", "completion": "b"}, {"messages": TALK}):
        up, down = (take({**record, "label": label}) for label in (True, False))
        assert up.key != down.key
        assert up.input_key == down.input_key, "the later rating of an answer replaces the earlier"
    up = take({"prompt": "a", "completion": "b", "label": True})
    assert take({"prompt": " a", "completion": "b\n", "label": "good"}).key == up.key
    other = take({"prompt": "a", "completion": "c", "label": True})
    assert other.input_key != up.input_key, "two answers to one prompt may both be good"
    taught = take({"prompt": "a", "completion": "b"})
    assert {taught.key, taught.input_key}.isdisjoint({up.key, up.input_key})


def test_one_exchange_is_an_instruction_in_whatever_form_it_comes() -> None:
    item = take({"instruction": "a", "output": "b"})
    assert take({"messages": dialogue("a", "b")}) == item
    assert item.row == Instruction("a", "", "b")
    alone = take({"prompt": "a", "chosen": "b", "rejected": "c"})
    assert take({"chosen": dialogue("a", "b"), "rejected": dialogue("a", "c")}) == alone
    assert alone.row == PreferencePair("a", "b", "c")


def test_keys_of_conversations_identify_equal_items_and_equal_inputs() -> None:
    item = take({"messages": TALK})
    spaced = take({"messages": dialogue(" a", "b\n", "c", "d")})
    assert (item.key, item.input_key) == (spaced.key, spaced.input_key)
    corrected = take({"messages": dialogue("a", "b", "c", "e")})
    assert corrected.key != item.key
    assert corrected.input_key == item.input_key
    elsewhere = take({"messages": dialogue("a", "x", "c", "d")})
    assert elsewhere.input_key != item.input_key
    with_tools = take({"messages": TALK, "tools": [{"name": "kettle"}]})
    assert with_tools.input_key != item.input_key
    pair = take({"prompt": TALK[:3], "chosen": "x", "rejected": "y"})
    turned = take({"prompt": TALK[:3], "chosen": "y", "rejected": "x"})
    assert pair.input_key == turned.input_key
    assert pair.key != turned.key


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"messages": [*TALK, *dialogue(SECRET)]}, "only in part: turns after the last answer"),
        ({"messages": dialogue(SECRET)}, "messages has no answer of the assistant"),
        ({"messages": [{"role": SECRET, "content": SECRET}]}, "a message of an unknown role"),
        ({"messages": SECRET}, "messages is not a list of messages"),
        ({"messages": dialogue("a", "x" * 60, "b", "x" * 60)}, "the item has 122 characters, more"),
        ({"messages": dialogue("a", "b"), "images": [SECRET]}, "images cannot be used"),
    ],
)
def test_an_invalid_conversation_is_refused_with_a_reason(
    record: dict[str, object], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        take(record)
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
    names = tuple(name for name in item.fields if name in FIELDS[item.kind])
    assert MESSAGES in item.fields or names == tuple(item.fields) == FIELDS[item.kind]
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
