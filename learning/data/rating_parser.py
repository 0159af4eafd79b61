"""Parser of rated answers: a prompt of one or several turns, an answer, and whether it was liked.

The forms are those of trl's unpaired preferences and of logs of an application: an answer beside
its prompt, or at the end of a conversation, with a column that rates it. A preference pair becomes
two ratings.

In the data path: beside `learning.data.preference_parser`, with the same column names and rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from learning.data.field_values import (
    OnOmission,
    UnusableRow,
    ignore_omission,
    optional_text,
    refuse_media,
    require_text,
)
from learning.data.judged_prompts import (
    as_messages,
    complete_prompt,
    find_prompt,
    join_prompt,
    parse_prompt,
    split_last_answer,
)
from learning.data.message_parser import is_conversation, parse_tools
from learning.data.preference_parser import parse_preference
from learning.data.row_parser import (
    CONVERSATION_COLUMNS,
    ColumnMapping,
    FindField,
    Turns,
    find_field,
)
from learning.data.row_types import RatedAnswer

_WORDS = {
    True: ("true", "yes", "good", "up", "like", "liked", "positive", "desirable", "chosen", "👍"),
    False: (
        *("false", "no", "bad", "down", "dislike", "disliked", "negative", "undesirable"),
        *("rejected", "👎"),
    ),
}
_PREFIXES = ("thumbs", "thumb")  # of "thumbs_up", "thumb down"
_SCALES = ("rating",)  # columns whose numbers may be stars, so that 1 may be the worst


def parse_ratings(
    record: Mapping[str, object], columns: ColumnMapping, on_omission: OnOmission = ignore_omission
) -> tuple[RatedAnswer, ...]:
    """Return the rated answer of a record, or both answers of a preference pair.

    Args:
        on_omission: Called with each kind of content that is left out.

    Raises:
        UnusableRow: A part is missing, empty, too long or not text, or the label is neither good
            nor bad.
    """

    def find(field: str) -> tuple[str, object]:
        return find_field("kto", field, record, columns)

    if find("completion")[1] is None and None not in (find("chosen")[1], find("rejected")[1]):
        return _both(record, columns, on_omission)
    refuse_media(record)
    good = _is_good(*find("label"), scale="label" not in columns)
    topic, tools = optional_text(*find("topic")), parse_tools(*find("tools"))
    prompt, answer = _answer(find, record, on_omission)
    return (
        RatedAnswer(complete_prompt(find, record, prompt, on_omission), answer, good, topic, tools),
    )


def _both(
    record: Mapping[str, object], columns: ColumnMapping, on_omission: OnOmission
) -> tuple[RatedAnswer, ...]:
    pair = parse_preference(record, columns, on_omission)
    return (
        RatedAnswer(pair.prompt, pair.chosen, True, pair.topic, pair.tools),
        RatedAnswer(pair.prompt, pair.rejected, False, pair.topic, pair.tools),
    )


def _answer(
    find: FindField, record: Mapping[str, object], on_omission: OnOmission
) -> tuple[str | Turns, str]:
    """Return the prompt and the answer."""
    answer_name, answer = find("completion")
    name, prompt = find_prompt(find, record)
    if answer is None:
        answer_name, answer = _conversation(record)
        if answer is None:
            raise UnusableRow("completion is missing")
    answer = as_messages(answer)
    if not is_conversation(answer):
        text = require_text(answer_name, answer)
        return parse_prompt(name, prompt, record, on_omission, text), text
    before, text = split_last_answer(answer_name, answer, on_omission)
    if isinstance(prompt, str) and not prompt.strip():
        prompt = None
    if before:
        return join_prompt(name, prompt, answer_name, before, on_omission), text
    return parse_prompt(name, prompt, record, on_omission, text), text


def _conversation(record: Mapping[str, object]) -> tuple[str, object]:
    """Return the column of a conversation that ends with the answer, and its value."""
    for name, value in record.items():
        if name.lower() in CONVERSATION_COLUMNS and is_conversation(value):
            return name, value
    return "messages", None


def _is_good(name: str, value: object, *, scale: bool) -> bool:
    """Return whether a label says that the answer is good.

    Args:
        scale: Whether numbers in a column of that name may be grades.

    Raises:
        UnusableRow: It is neither good nor bad.
    """
    if value is None:
        raise UnusableRow(f"{name} is missing")
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        words = value.strip().lower().replace("-", "_").replace(" ", "_")
        for prefix in _PREFIXES:
            words = words.removeprefix(prefix).removeprefix("_")
        for good, known in _WORDS.items():
            if words in known:
                return good
        value = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "_1": -1}.get(words)
    if isinstance(value, int | float) and value in (1, 0, -1):
        if scale and name.lower() in _SCALES:
            raise UnusableRow(
                f"{name} is a number, which may be a grade: name it label for 0 and 1"
            )
        return value == 1
    raise UnusableRow(f"{name} is neither good nor bad: give true or false")
