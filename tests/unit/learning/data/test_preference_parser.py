"""Tests of the forms of preference pairs, with prompts of one and of several turns."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from learning.data.field_values import UnusableRow
from learning.data.preference_parser import parse_preference
from learning.data.row_types import Message, PreferencePair
from tests.support.conversations import SYSTEM, dialogue, turns

ANSWERS = {"chosen": "Yes", "rejected": "No"}
TALK = ("Hi", "Hello.", "Tea?")
KIND = Message("system", "Be kind.")


def spoken(text: str) -> list[dict[str, object]]:
    return dialogue("", text)[1:]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", **ANSWERS, "metadata": {"score": 9}},
        {"question": "Hi", **ANSWERS, "system": "", "history": None, "images": []},
        {"prompt": "Hi", "chosen": spoken("Yes"), "rejected": spoken("No")},
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes",
            "rejected": "\n\nHuman: Hi\n\nAssistant: No",
        },
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", **ANSWERS},
        {"input": "Hi", **ANSWERS},
        {"instruction": "Hi", "input": "", **ANSWERS},
        {"prompt": "Hi", "input": "Hi", **ANSWERS},
    ],
)
def test_a_pair_with_a_prompt_that_is_a_text_is_found_in_each_common_form(
    record: Mapping[str, object],
) -> None:
    assert parse_preference(record, {}) == PreferencePair("Hi", "Yes", "No")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Hi", "No")},
        {"chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Hi", "No")},
        {"prompt": " ", "chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Hi", "No")},
        {"prompt": dialogue("Hi"), "chosen": spoken("Yes"), "rejected": spoken("No")},
        {
            "prompt": dialogue("Hi"),
            "chosen": dialogue("Hi", "Yes"),
            "rejected": dialogue("Hi", "No"),
        },
        {"prompt": dialogue("Hi"), **ANSWERS},
        {
            "input": {"messages": dialogue("Hi"), "tools": [], "parallel_tool_calls": True},
            "preferred_output": spoken("Yes"),
            "non_preferred_output": spoken("No"),
        },
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Yes"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        {"messages": dialogue("Hi", "Yes"), **ANSWERS},
    ],
)
def test_a_pair_with_a_message_as_its_prompt_is_found_in_each_common_form(
    record: Mapping[str, object],
) -> None:
    assert parse_preference(record, {}) == PreferencePair(turns("Hi"), "Yes", "No")


START = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Tea?\n\nAssistant:"


@pytest.mark.parametrize(
    "record",
    [
        {"chosen": dialogue(*TALK, "Yes"), "rejected": dialogue(*TALK, "No")},
        {"prompt": "Tea?", "chosen": dialogue(*TALK, "Yes"), "rejected": dialogue(*TALK, "No")},
        {"prompt": dialogue(*TALK), "chosen": spoken("Yes"), "rejected": spoken("No")},
        {
            "prompt": dialogue("Hi"),
            "chosen": dialogue(*TALK, "Yes")[1:],
            "rejected": dialogue(*TALK, "No")[1:],
        },
        {"prompt": "Tea?", "history": [["Hi", "Hello."]], **ANSWERS},
        {"chosen": f"{START} Yes", "rejected": f"{START} No"},
        {"prompt": START, **ANSWERS},
        {"conversations": dialogue(*TALK), **ANSWERS},
    ],
)
def test_a_prompt_of_several_turns_is_found_in_each_common_form(
    record: Mapping[str, object],
) -> None:
    assert parse_preference(record, {}) == PreferencePair(turns(*TALK), "Yes", "No")


@pytest.mark.parametrize(
    "record",
    [
        {"chosen": [SYSTEM, *dialogue("Hi", "Yes")], "rejected": [SYSTEM, *dialogue("Hi", "No")]},
        {"system": "Be kind.", "question": "Hi", **ANSWERS},
        {"system": "Be kind.", "prompt": dialogue("Hi"), **ANSWERS},
        {"system": "Be kind.", "prompt": [SYSTEM, *dialogue("Hi")], **ANSWERS},
    ],
)
def test_a_system_prompt_is_a_turn_of_the_prompt(record: Mapping[str, object]) -> None:
    assert parse_preference(record, {}) == PreferencePair((KIND, *turns("Hi")), "Yes", "No")


def test_contents_of_messages_stay_as_they_are_and_tools_are_kept() -> None:
    record = {
        "prompt": dialogue(" Hi\n"),
        "chosen": spoken("Yes\n"),
        "rejected": spoken(" No"),
        "tools": [{"name": "kettle"}],
        "topic": "tea",
    }
    assert parse_preference(record, {}) == PreferencePair(
        turns(" Hi\n"), "Yes\n", " No", "tea", '[{"name": "kettle"}]'
    )


def test_the_answer_to_a_tool_is_compared() -> None:
    before = [
        *dialogue("Rain?"),
        {"role": "assistant", "tool_calls": [{"name": "sky", "arguments": {}}]},
        {"role": "tool", "content": "grey"},
    ]
    pair = parse_preference(
        {"chosen": before + spoken("Yes"), "rejected": before + spoken("No")}, {}
    )
    assert [turn.role for turn in pair.prompt if not isinstance(turn, str)] == [
        "user", "assistant", "tool",
    ]  # fmt: skip


def test_what_an_instruction_applies_to_is_part_of_the_prompt() -> None:
    record = {"instruction": "Sum up.", "input": "1 and 2", "chosen": "3", "rejected": "4"}
    assert parse_preference(record, {}) == PreferencePair("Sum up.\n\n1 and 2", "3", "4")


def test_what_is_left_out_of_a_pair_is_named() -> None:
    omitted: list[str] = []
    longer = {"chosen": dialogue("Hi", "Yes", "Bye"), "rejected": dialogue("Hi", "No")}
    expected = PreferencePair(turns("Hi"), "Yes", "No")
    assert parse_preference(longer, {}, omitted.append) == expected
    assert omitted == ["turns after the last answer left out"]
    other = {"prompt": "Ho", "chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Hi", "No")}
    assert parse_preference(other, {}, omitted.append) == expected
    assert omitted[1:] == ["prompt left out, since chosen has other turns before its answer"]
    more = {"prompt": dialogue("Hi"), "context": "It rains.", **ANSWERS}
    assert parse_preference(more, {}, omitted.append) == expected
    assert omitted[2:] == ["context left out, since the prompt has turns"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (ANSWERS, "prompt is missing"),
        ({"prompt": "Hi", "chosen": dialogue("Hi", "Yes"), "rejected": "No"}, "chosen is not text"),
        (
            {"prompt": "Hi", "chosen": dialogue("Hi"), "rejected": dialogue("Hi")},
            "chosen has no answer of the assistant",
        ),
        (
            {"chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Ho", "No")},
            "differ before their last answer",
        ),
        (
            {"chosen": dialogue("Hi", "a", "b", "c"), "rejected": dialogue("Hi", "x", "b", "d")},
            "differ before their last answer",
        ),
        (
            {"chosen": dialogue("Hi", "a", "b", "c"), "rejected": dialogue("Hi", "d")},
            "differ before their last answer",
        ),
        ({"prompt": dialogue("Hi", "a"), **ANSWERS}, "prompt ends with a turn of the assistant"),
        (
            {
                "prompt": dialogue("Ho"),
                "chosen": dialogue("Hi", "a"),
                "rejected": dialogue("Hi", "b"),
            },
            "prompt and chosen have different turns",
        ),
        ({"prompt": [SYSTEM, "x"], **ANSWERS}, "prompt is not a list of messages"),
        ({"prompt": " ", **ANSWERS}, "prompt is empty"),
        ({"prompt": "Hi", **ANSWERS, "image": "cat.png"}, "image cannot be used"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b"}, "prompt is missing"),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
                "rejected": "\n\nHuman: a\n\nAssistant: x",
            },
            "differ before their last answer",
        ),
        ({"prompt": "Hi", "chosen": "same ", "rejected": "\nsame"}, "are equal"),
        ({"prompt": "Hi", "chosen": "", "rejected": "b"}, "chosen is empty"),
        (
            {
                "prompt": "Hi",
                "chosen": [{"role": "assistant", "tool_calls": [{"name": "sky"}]}],
                "rejected": spoken("No"),
            },
            "chosen ends with a call of a tool",
        ),
    ],
)
def test_an_unusable_pair_is_refused_with_a_reason(
    record: Mapping[str, object], reason: str
) -> None:
    with pytest.raises(UnusableRow, match=reason):
        parse_preference(record, {})
