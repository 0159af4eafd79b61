"""Tests of the forms of messages, of calls of tools, and of turns that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.data.field_values import UnusableRow
from learning.data.message_parser import (
    MAX_TURNS,
    messages_to_json,
    parse_history,
    parse_messages,
    parse_tools,
)
from learning.data.row_types import MAX_CHARS, Message, Role
from tests.support.conversations import dialogue, turns


def parse(*messages: object) -> tuple[Message, ...]:
    return parse_messages("messages", list(messages))


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("system", ["system", "developer", "System"]),
        ("user", ["user", "human", "prompter", "Human"]),
        ("assistant", ["assistant", "gpt", "model", "bot", "chatgpt", "bing", "bard"]),
        ("tool", ["tool", "function", "observation", "ipython"]),
    ],
)
def test_every_name_of_a_role_is_known_in_both_forms(role: Role, names: list[str]) -> None:
    for name in names:
        assert parse({"role": name, "content": "x"}) == (Message(role, "x"),)
        assert parse({"from": name, "value": "x"}) == (Message(role, "x"),)


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "Add "}, {"type": "text", "text": "1.\n"}, "Now."]
    assert parse({"role": "user", "content": parts}) == (Message("user", "Add 1.\nNow."),)


CALL = '[{"name": "weather", "arguments": {"town": "Ulm", "days": 2}}]'
ARGUMENTS = {"town": "Ulm", "days": 2}


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)},
                }
            ],
        },
        {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": ARGUMENTS}]},
        {"role": "assistant", "content": "", "tool_calls": CALL},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "weather", "arguments": json.dumps(ARGUMENTS)},
        },
        {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": ARGUMENTS})},
        {"from": "function_call", "value": CALL},
    ],
)
def test_calls_of_tools_become_one_form(message: Mapping[str, object]) -> None:
    assert parse(message) == (Message("assistant", "", CALL),)


def test_arguments_that_are_no_object_stay_text_and_missing_ones_are_empty() -> None:
    calls = [{"name": "a", "arguments": "not JSON"}, {"name": "b"}]
    (turn,) = parse({"role": "assistant", "content": "Wait.", "tool_calls": calls})
    assert turn.content == "Wait."
    assert json.loads(turn.tool_calls) == [
        {"name": "a", "arguments": "not JSON"},
        {"name": "b", "arguments": {}},
    ]


def test_what_a_tool_returns_may_be_empty_or_an_object() -> None:
    assert parse({"role": "tool", "content": ""}) == (Message("tool", ""),)
    assert parse({"role": "tool", "content": {"sky": "grey"}}) == (
        Message("tool", '{"sky": "grey"}'),
    )
    assert parse({"role": "system", "content": ""}) == (Message("system", ""),)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("text", "is not a list of messages"),
        ({"content": "x"}, "has a message without a role"),
        ({"role": "narrator", "content": "x"}, "has a message of an unknown role"),
        ({"role": ["user"], "content": "x"}, "has a message of an unknown role"),
        ({"role": "user", "content": " "}, "has an empty turn of the user"),
        ({"role": "assistant", "content": None}, "has an empty answer"),
        ({"role": "assistant", "content": "\n"}, "has an empty answer"),
        ({"role": "assistant", "content": "x", "weight": 0}, "marked as not to be learned"),
        ({"role": "assistant", "content": "x", "train": False}, "marked as not to be"),
        ({"role": "user", "content": 7}, "a turn of messages is not text"),
        ({"role": "user", "content": "\ud800"}, "a turn of messages is not valid UTF-8 text"),
        ({"role": "user", "content": "x" * (MAX_CHARS + 1)}, "has 32769 characters, more than"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]},
            "a part that is not text, such as an image",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "a part that is not text",
        ),
        ({"role": "user", "content": "x", "images": ["cat.png"]}, "images cannot be used"),
        ({"role": "assistant", "tool_calls": ["x"]}, "a call of a tool that cannot be read"),
        (
            {"role": "assistant", "tool_calls": [{"id": "c"}]},
            "a call of a tool that cannot be read",
        ),
        ({"from": "function_call", "value": "weather(1)"}, "a call of a tool that cannot be read"),
    ],
)
def test_a_message_that_cannot_be_used_is_refused_without_its_text(
    message: object, reason: str
) -> None:
    with pytest.raises(UnusableRow, match=reason):
        parse(message)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"reasoning_content": "It is easy."}, "reasoning left out"),
        ({"thinking": "It is easy."}, "reasoning left out"),
        ({"name": "Ada"}, "names of speakers or tools left out"),
        ({"reasoning_content": None, "name": "", "weight": 1, "train": True}, None),
        ({"id": "7", "tool_calls": None}, None),
    ],
)
def test_what_is_left_out_of_a_turn_is_named(more: Mapping[str, object], said: str | None) -> None:
    omitted: list[str] = []
    message = {"role": "assistant", "content": "3", **more}
    assert parse_messages("m", [message], omitted.append) == (Message("assistant", "3"),)
    assert omitted == ([] if said is None else [said])


def test_a_conversation_of_endless_turns_or_length_is_refused() -> None:
    with pytest.raises(UnusableRow, match=f"messages has {MAX_TURNS + 2} turns, more than"):
        parse(*dialogue(*["x"] * (MAX_TURNS + 2)))
    with pytest.raises(UnusableRow, match=r"messages has \d+ characters, more than \d+"):
        parse(*dialogue(*["x" * MAX_CHARS] * 9))


def test_earlier_exchanges_are_pairs_messages_or_json() -> None:
    expected = turns("Hi", "Hello.")
    for value in ([["Hi", "Hello."]], dialogue("Hi", "Hello."), '[["Hi", "Hello."]]'):
        assert parse_history("history", value) == expected
    for empty in (None, [], "", "[]"):
        assert parse_history("history", empty) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(st.dictionaries(st.just("name"), JSON, min_size=1), max_size=3))
def test_definitions_of_tools_read_back_unchanged(tools: list[Any]) -> None:
    text = parse_tools("tools", tools)
    assert bool(text) == bool(tools)
    assert parse_tools("tools", text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])), JSON)
def test_calls_of_tools_read_back_unchanged(name: str, arguments: object) -> None:
    found = parse({"role": "assistant", "tool_calls": [{"name": name, "arguments": arguments}]})
    assert parse(*messages_to_json(found)) == found
