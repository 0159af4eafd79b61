from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.data.row_parser import (
    COLUMN_NAMES,
    UnusableRow,
    known_columns,
    parse_instruction,
    parse_labelled_text,
    parse_preference,
)
from learning.data.row_types import Instruction, LabelledText, PreferencePair

Talk = list[dict[str, object]]


def dialogue(*turns: str) -> Talk:
    """Return messages of the user and the assistant in alternation."""
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]


SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Add.", "input": "", "output": "3", "text": "### Add."},
        {"instruction": "Add.", "context": None, "response": "3", "category": "sums"},
        {"prompt": "Add.", "completion": "3"},
        {"question": "Add.", "answer": "3"},
        {"Query": "Add.", "Response": "3"},
        {"instruction": None, "prompt": "Add.", "output": "3"},
        {"messages": dialogue("Add.", "3")},
        {"prompt": "Add.", "prompt_id": "7f", "messages": dialogue("Add.", "3", "More.", "4")},
        {"conversations": [{"from": "human", "value": "Add."}, {"from": "gpt", "value": "3"}]},
        {"messages": [SYSTEM, *dialogue("Add.", "3")]},
        {"prompt": dialogue("Add."), "completion": [{"role": "assistant", "content": "3"}]},
    ],
)
def test_an_instruction_is_found_in_each_common_form(record: Mapping[str, object]) -> None:
    assert parse_instruction(record, {}) == Instruction("Add.", "", "3")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ("text", "messages is not a list of messages"),
        (["text"], "messages is not a list of messages"),
        ([], "messages does not begin with the user and an answer"),
        (dialogue("Add."), "messages does not begin with the user and an answer"),
        (dialogue("Add.", "3")[::-1], "messages does not begin with the user and an answer"),
        (dialogue("Add.", " "), "output is empty"),
        ([{"role": "tool", "content": "3"}], "neither the user's nor the assistant's"),
        ([{"role": ["user"], "content": "3"}], "neither the user's nor the assistant's"),
        ([{"role": "user"}, {"role": "assistant"}], "instruction is missing"),
    ],
)
def test_an_unsupported_conversation_is_skipped_with_a_reason(turns: object, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        parse_instruction({"messages": turns}, {})


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi", "chosen": "Yes", "rejected": "No", "metadata": {"score": 9}},
        {"system": "Be kind.", "question": "Hi", "chosen": "Yes", "rejected": "No"},
        {"prompt": "Hi", "chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Hi", "No")},
        {"chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Hi", "No")},
        {"chosen": [SYSTEM, *dialogue("Hi", "Yes")], "rejected": [SYSTEM, *dialogue("Hi", "No")]},
        {
            "prompt": dialogue("Hi"),
            "chosen": dialogue("", "Yes")[1:],
            "rejected": dialogue("", "No")[1:],
        },
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Yes",
            "rejected": "\n\nHuman: Hi\n\nAssistant: No",
        },
    ],
)
def test_a_preference_is_found_in_each_common_form(record: Mapping[str, object]) -> None:
    assert parse_preference(record, {}) == PreferencePair("Hi", "Yes", "No")


def test_the_prompt_of_a_longer_dialogue_is_what_both_answers_share() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Tea?\n\nAssistant:"
    got = parse_preference({"chosen": f"{start} Yes, please", "rejected": f"{start} Yes"}, {})
    prompt = "Hi\n\nAssistant: Hello.\n\nHuman: Tea?"
    assert got == PreferencePair(prompt, "Yes, please", "Yes")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"chosen": "Yes", "rejected": "No"}, "prompt is missing"),
        ({"prompt": "Hi", "chosen": dialogue("Hi", "Yes"), "rejected": "No"}, "chosen is not text"),
        (
            {"prompt": "Hi", "chosen": dialogue("Hi"), "rejected": dialogue("Hi")},
            "not one exchange",
        ),
        (
            {"chosen": dialogue("Hi", "a", "b", "c"), "rejected": dialogue("Hi", "a", "b", "d")},
            "chosen is not one exchange",
        ),
        ({"chosen": dialogue("Hi", "Yes"), "rejected": dialogue("Ho", "No")}, "different prompts"),
        (
            {"prompt": dialogue("Hi", "a", "Ho"), "chosen": "a", "rejected": "b"},
            "prompt is not one",
        ),
        (
            {"prompt": " ", "chosen": dialogue("Hi", "a"), "rejected": dialogue("Hi", "b")},
            "prompt is emp",
        ),
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
    ],
)
def test_an_unusable_pair_is_skipped_with_a_reason(
    record: Mapping[str, object], reason: str
) -> None:
    with pytest.raises(UnusableRow, match=reason):
        parse_preference(record, {})


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
    assert parse_instruction(record | {"messages": dialogue("x", "y")}, columns).instruction == "Q"
    talk = record | {"talk": dialogue("x", "y"), "instruction": "i", "output": "o"}
    assert parse_instruction(talk, {"messages": "talk"}) == Instruction("x", "", "y")
    with pytest.raises(UnusableRow, match="talk is not a list of messages"):
        parse_instruction(record, {"messages": "talk"})


def test_known_columns_are_the_usual_names_and_the_mapped_ones_in_lower_case() -> None:
    assert {"text", "label", "reviewbody"} <= known_columns("cls", {"text": "ReviewBody"})
    assert "prompt" not in known_columns("cls", {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value"]),
            inner | st.sampled_from(["user", "assistant", "human", "gpt", "system"]),
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
