"""Parser of preference pairs: a prompt of one or several turns, and two answers to it.

In the data path: beside `learning.data.row_parser`, with the same column names and rules.
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
    ANSWER,
    QUESTION,
    as_messages,
    complete_prompt,
    conversation_beside,
    find_prompt,
    join_prompt,
    parse_dialogue,
    parse_prompt,
    split_last_answer,
)
from learning.data.message_parser import parse_tools
from learning.data.row_parser import ColumnMapping, FindField, Turns, find_field
from learning.data.row_types import PreferencePair


def parse_preference(
    record: Mapping[str, object], columns: ColumnMapping, on_omission: OnOmission = ignore_omission
) -> PreferencePair:
    """Return a preference pair, from texts or from conversations.

    Without a prompt column, the prompt is the turns that both conversations share before their last
    answers or, for texts of Anthropic's form, the turns with which both texts begin. The prompt is
    a text if it has one turn of the user only.

    Args:
        on_omission: Called with each kind of content that is left out.

    Raises:
        UnusableRow: A part is missing, empty, too long or not text; the answers are equal; or the
            conversations differ before their last answers.
    """
    refuse_media(record)
    record = _unfolded(record)

    def find(field: str) -> tuple[str, object]:
        return find_field("va", field, record, columns)

    topic, tools = optional_text(*find("topic")), parse_tools(*find("tools"))
    prompt, better, worse = _pair(find, record, on_omission)
    if better.strip() == worse.strip():
        raise UnusableRow("chosen and rejected are equal")
    prompt = complete_prompt(find, record, prompt, on_omission)
    return PreferencePair(prompt, better, worse, topic, tools)


def _unfolded(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return a record with messages and tools as columns, if it has OpenAI's form of a pair."""
    match record.get("input"):
        case {"messages": messages, **more}:
            return {**record, "input": None, "prompt": messages, "tools": more.get("tools")}
    return record


def _pair(
    find: FindField, record: Mapping[str, object], on_omission: OnOmission
) -> tuple[str | Turns, str, str]:
    """Return the prompt and both answers."""
    names = chosen_name, rejected_name = find("chosen")[0], find("rejected")[0]
    chosen, rejected = (as_messages(find(field)[1]) for field in ("chosen", "rejected"))
    name, prompt = find_prompt(find, record)
    if isinstance(prompt, str) and not prompt.strip() and isinstance(chosen, list):
        prompt = None
    if isinstance(chosen, list) and isinstance(rejected, list):
        before, better = split_last_answer(chosen_name, chosen, on_omission)
        other, worse = split_last_answer(rejected_name, rejected, on_omission)
        if before != other:
            raise UnusableRow(" and ".join(names) + " differ before their last answer")
        if before:
            return join_prompt(name, prompt, chosen_name, before, on_omission), better, worse
        return parse_prompt(name, prompt, record, on_omission, better), better, worse
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        if (turns := conversation_beside(record, on_omission, chosen)) is not None:
            return turns, require_text(chosen_name, chosen), require_text(rejected_name, rejected)
        return _dialogues(chosen, rejected)
    given = parse_prompt(name, prompt, record, on_omission, "")
    return given, require_text(chosen_name, chosen), require_text(rejected_name, rejected)


def _dialogues(chosen: str, rejected: str) -> tuple[str | Turns, str, str]:
    """Return the prompt and the answers of two dialogues with `Human:` and `Assistant:` turns."""
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    cut = chosen[:shared].rfind(ANSWER)
    if cut < 0:
        raise UnusableRow(
            "prompt is missing, and chosen and rejected are not dialogues with the same beginning"
        )
    better, worse = chosen[cut + len(ANSWER) :], rejected[cut + len(ANSWER) :]
    if QUESTION in better or QUESTION in worse:
        raise UnusableRow("chosen and rejected differ before their last answer")
    answers = require_text("chosen", better.strip()), require_text("rejected", worse.strip())
    return parse_dialogue(chosen[:cut]), *answers
