from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.data.field_values import UnusableRow
from learning.data.preference_parser import parse_preference
from learning.data.row_parser import (
    COLUMN_NAMES,
    known_columns,
    parse_instruction,
    parse_labelled_text,
)
from learning.data.row_types import Conversation, Instruction, LabelledText, Message
from tests.support.conversations import SYSTEM, dialogue, turns

TOOL = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Add.", "input": "", "output": "3", "text": "### Add."},
        {"instruction": "Add.", "context": None, "response": "3", "category": "sums"},
        {"prompt": "Add.", "completion": "3"},
        {"question": "Add.", "answer": "3"},
        {"Query": "Add.", "Response": "3"},
        {"instruction": None, "prompt": "Add.", "output": "3"},
        {"instruction": "Add.", "output": "3", "system": "", "history": [], "tools": "[]"},
        {"instruction": "Add.", "output": "3", "dialogue": "A text.", "turns": 2},
        {"instruction": "Add.", "output": "3", "images": []},
    ],
)
def test_an_instruction_is_found_in_each_common_form(record: Mapping[str, object]) -> None:
    assert parse_instruction(record, {}) == Instruction("Add.", "", "3")


@pytest.mark.parametrize(
    "record",
    [
        {"messages": dialogue("Add.", "3")},
        {"prompt": "Add.", "prompt_id": "7f", "messages": dialogue("Add.", "3")},
        {"prompt": "Add.", "completion": "9", "messages": dialogue("Add.", "3")},
        {"conversations": [{"from": "human", "value": "Add."}, {"from": "gpt", "value": "3"}]},
        {"conversation": [{"input": "Add.", "output": "3"}]},
        {"Dialogue": dialogue("Add.", "3")},
        {"messages": '[{"role": "user", "content": "Add."}, {"role": "bot", "content": "3"}]'},
        {"conversations": {"from": ["human", "gpt"], "value": ["Add.", "3"]}},
        {"prompt": dialogue("Add."), "completion": [{"role": "assistant", "content": "3"}]},
        {"prompt": dialogue("Add."), "completion": "3"},
        {"prompt": "Add.", "completion": [{"role": "assistant", "content": "3"}]},
    ],
)
def test_a_conversation_is_found_in_each_common_form(record: Mapping[str, object]) -> None:
    assert parse_instruction(record, {}) == Conversation(turns("Add.", "3"))


def test_a_conversation_keeps_all_turns_the_system_turn_and_white_space() -> None:
    talk = [SYSTEM, *dialogue(" Add.\n", "3 ", "And?", "\n4")]
    expected = (Message("system", "Be kind."), *turns(" Add.\n", "3 ", "And?", "\n4"))
    assert parse_instruction({"messages": talk, "topic": "sums"}, {}) == Conversation(
        expected, "", "sums"
    )
    greeting = {"messages": [{"role": "assistant", "content": "Hello."}, *dialogue("Add.", "3")]}
    found = parse_instruction(greeting, {})
    assert isinstance(found, Conversation)
    assert found.messages == (Message("assistant", "Hello."), *turns("Add.", "3"))


def test_a_prompt_of_messages_is_followed_by_its_completion() -> None:
    record = {
        "prompt": [SYSTEM, *dialogue("Add.", "3", "And?")],
        "completion": dialogue("", "4")[1:],
    }
    expected = (Message("system", "Be kind."), *turns("Add.", "3", "And?", "4"))
    assert parse_instruction(record, {}) == Conversation(expected)


def test_an_instruction_with_a_system_prompt_or_earlier_exchanges_is_a_conversation() -> None:
    record = {
        "instruction": "Sum up.",
        "input": "1 and 2",
        "output": "3",
        "system": "Be kind.",
        "history": [["Hi", "Hello."], ["Tea?", "Yes."]],
    }
    assert parse_instruction(record, {}) == Conversation(
        (
            Message("system", "Be kind."),
            *turns("Hi", "Hello.", "Tea?", "Yes.", "Sum up.\n\n1 and 2", "3"),
        )
    )
    orca = {"system_prompt": "Be kind.", "question": "Add.", "response": "3"}
    expected = Conversation((Message("system", "Be kind."), *turns("Add.", "3")))
    assert parse_instruction(orca, {}) == expected
    parts = {"system": [{"text": "Be "}, {"text": "kind."}], "messages": dialogue("Add.", "3")}
    assert parse_instruction(parts, {}) == expected
    called = {"role": "s", "question": "Add.", "response": "3", "role_text": "Be kind."}
    assert parse_instruction(called, {"system": "role_text"}) == expected


def test_tools_are_kept_as_json_whether_they_are_a_list_or_its_text() -> None:
    text = '[{"type": "function", "function": {"name": "weather"}}]'
    for tools in ([TOOL], text, [text[1:-1]], TOOL):
        record = {"messages": dialogue("Add.", "3"), "tools": tools}
        assert parse_instruction(record, {}) == Conversation(turns("Add.", "3"), text)
    with pytest.raises(UnusableRow, match="tools is not a JSON list of definitions"):
        parse_instruction({"messages": dialogue("Add.", "3"), "tools": "a hammer"}, {})


def test_a_system_column_precedes_the_turns_unless_they_have_a_system_prompt() -> None:
    omitted: list[str] = []
    record = {"conversations": dialogue("Add.", "3"), "system": "Be kind."}
    expected = Conversation((Message("system", "Be kind."), *turns("Add.", "3")))
    assert parse_instruction(record, {}, omitted.append) == expected
    same = {"messages": [SYSTEM, *dialogue("Add.", "3")], "system": "Be kind. "}
    assert parse_instruction(same, {}, omitted.append) == expected
    assert not omitted
    assert parse_instruction({**same, "system": "Be rude."}, {}, omitted.append) == expected
    assert omitted == ["system left out, since the turns have a system prompt"]


def test_turns_that_no_answer_follows_are_left_out_and_named() -> None:
    omitted: list[str] = []
    record = {"messages": dialogue("Add.", "3", "Thanks.")}
    assert parse_instruction(record, {}, omitted.append) == Conversation(turns("Add.", "3"))
    assert omitted == ["turns after the last answer left out"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": "text"}, "messages is not a list of messages"),
        ({"messages": dialogue("Add.")}, "messages has no answer of the assistant"),
        ({"instruction": "Add.", "output": "3", "history": "ages"}, "history is not a list of ear"),
        (
            {"instruction": "Add.", "output": "3", "history": [["a"]]},
            "history is not a list of ear",
        ),
        (
            {"instruction": "Add.", "output": "3", "history": [["a", ""]]},
            "history has an empty ans",
        ),
        (
            {"instruction": "Add.", "output": "3", "image": "cat.png"},
            "image cannot be used",
        ),
        ({"messages": dialogue("Add.", "3"), "images": [b"x"]}, "images cannot be used"),
        ({"prompt": dialogue("Add.")}, "output is missing"),
        ({"prompt": dialogue("Add."), "completion": ["3"]}, "completion is not a list of messages"),
    ],
)
def test_a_record_that_would_be_learned_wrongly_is_refused(
    record: Mapping[str, object], reason: str
) -> None:
    with pytest.raises(UnusableRow, match=reason):
        parse_instruction(record, {})


@pytest.mark.parametrize(
    "record",
    [
        {"text": "fine", "label": 1},
        {"sentence": "fine", "label": 1, "idx": 0},
        {"review": "fine", "sentiment": "1"},
        {"content": "fine", "category": "1", "title": "t"},
        {"Text": "fine", "Class": 1.0},
    ],
)
def test_a_labelled_text_is_found_in_each_common_form(record: Mapping[str, object]) -> None:
    assert parse_labelled_text(record, {}) == LabelledText("fine", "1")


def test_a_mapping_takes_precedence_over_known_names() -> None:
    record = {"text": "title", "body": "fine", "label": 0, "stars": 5, "q": "Q", "a": "A", "t": "T"}
    assert parse_labelled_text(record, {"text": "body", "label": "stars"}) == LabelledText(
        "fine", "5"
    )
    assert parse_labelled_text(record, {"text": "body"}) == LabelledText("fine", "0")
    columns = {"instruction": "q", "output": "a", "topic": "t"}
    assert parse_instruction(record, columns) == Instruction("Q", "", "A", "T")
    both = record | {"messages": dialogue("x", "y")}
    assert parse_instruction(both, columns) == Instruction("Q", "", "A", "T")
    talk = record | {"talk": dialogue("x", "y"), "instruction": "i", "output": "o"}
    assert parse_instruction(talk, {"messages": "talk"}) == Conversation(turns("x", "y"))
    with pytest.raises(UnusableRow, match="talk is not a list of messages"):
        parse_instruction(record, {"messages": "talk"})


def test_known_columns_are_the_usual_names_and_the_mapped_ones_in_lower_case() -> None:
    assert {"text", "label", "reviewbody"} <= known_columns("cls", {"text": "ReviewBody"})
    assert {"images", "tools", "history"} <= known_columns("sft", {})
    assert {"image", "conversations", "system"} <= known_columns("va", {})
    assert "prompt" not in known_columns("cls", {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "tool_calls", "name", "text"]),
            inner | st.sampled_from(["user", "assistant", "human", "gpt", "system", "tool"]),
            max_size=3,
        )
    ),
    max_leaves=12,
)
FIELDS = sorted(
    {name for names in COLUMN_NAMES.values() for found in names.values() for name in found}
)


@given(record=st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), VALUES, max_size=8))
def test_any_record_gives_a_row_or_a_reason_of_one_line(record: dict[str, object]) -> None:
    for made in (parse_instruction, parse_preference, parse_labelled_text):
        try:
            made(record, {})
        except UnusableRow as reason:
            assert str(reason).isprintable()
