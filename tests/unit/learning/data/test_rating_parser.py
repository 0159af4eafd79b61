from typing import Any

import pytest

from learning.data.field_values import UnusableRow
from learning.data.rating_parser import parse_ratings
from learning.data.row_types import Message, RatedAnswer
from tests.support.conversations import dialogue

ASKED = (Message("system", "Be brief."), Message("user", "Hi"))


@pytest.mark.parametrize(
    ("label", "good"),
    [
        *[(value, True) for value in (True, 1, 1.0, "true", "Good", "thumbs up", "UP", "👍", "1")],
        *[(value, False) for value in (False, 0, -1, "FALSE", "bad", "thumbs_down", "down", "0")],
    ],
)
def test_a_label_is_a_truth_value_a_number_or_a_word(label: object, good: bool) -> None:
    record = {"prompt": "Hi", "completion": "Hello.", "label": label}
    assert parse_ratings(record, {}) == (RatedAnswer("Hi", "Hello.", good),)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"label": None}, "label is missing"),
        ({"label": "maybe"}, "label is neither good nor bad: give true or false"),
        ({"label": 2}, "label is neither good nor bad: give true or false"),
        ({"label": [True]}, "label is neither good nor bad: give true or false"),
        ({"label": None, "rating": 1}, "rating is a number, which may be a grade"),
        ({"completion": None}, "completion is missing"),
        ({"completion": " "}, "completion is empty"),
        ({"prompt": None}, "prompt is missing"),
        ({"prompt": dialogue("Hi", "Hello.")}, "prompt ends with a turn of the assistant"),
        ({"image": "x.png"}, "image cannot be used"),
    ],
)
def test_a_record_without_a_usable_part_is_refused(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        parse_ratings({"prompt": "Hi", "completion": "Hello.", "label": True} | record, {})


def test_columns_have_common_names_or_those_that_the_user_gives() -> None:
    expected = (RatedAnswer("Hi", "Hello.", False, topic="talk"),)
    record = {"question": "Hi", "response": "Hello.", "thumbs_up": False, "topic": "talk"}
    assert parse_ratings(record, {}) == expected
    record = {"a": "Hi", "b": "Hello.", "rating": 0, "topic": "talk"}
    columns = {"prompt": "a", "completion": "b", "label": "rating"}
    assert parse_ratings(record, columns) == expected


@pytest.mark.parametrize(
    "record",
    [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, *dialogue("Hi")],
            "completion": [{"role": "assistant", "content": "Hello."}],
        },
        {"messages": [{"role": "system", "content": "Be brief."}, *dialogue("Hi", "Hello.")]},
        {"messages": dialogue("Hi"), "completion": "Hello.", "system": "Be brief."},
        {"prompt": "Hi", "completion": "Hello.", "system": "Be brief."},
    ],
    ids=["trl", "messages", "messages beside the answer", "columns"],
)
def test_conversations_give_the_prompt_all_turns_before_the_answer(record: dict[str, Any]) -> None:
    assert parse_ratings(record | {"label": True}, {}) == (RatedAnswer(ASKED, "Hello.", True),)


def test_a_pair_becomes_two_ratings() -> None:
    record = {"prompt": "Hi", "chosen": "Hello.", "rejected": "No.", "topic": "t"}
    assert parse_ratings(record, {}) == (
        RatedAnswer("Hi", "Hello.", True, "t"),
        RatedAnswer("Hi", "No.", False, "t"),
    )
    with pytest.raises(UnusableRow, match="equal"):
        parse_ratings(record | {"rejected": "Hello."}, {})
