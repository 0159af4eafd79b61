"""Parser of preference pairs: a prompt of one or several turns, and two answers to it.

In the data path: beside `learning.data.row_parser`, with the same column names and rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from learning.data.field_values import (
    OnOmission,
    UnusableRow,
    ignore_omission,
    optional_text,
    refuse_media,
    require_text,
)
from learning.data.message_parser import (
    check_size,
    is_conversation,
    parse_history,
    parse_messages,
    parse_tools,
    up_to_last_answer,
)
from learning.data.row_parser import (
    CONVERSATION_COLUMNS,
    ColumnMapping,
    FindField,
    Turns,
    find_field,
    has_system,
    join_input,
    with_context,
)
from learning.data.row_types import Message, PreferencePair

_QUESTION, _ANSWER = "\n\nHuman:", "\n\nAssistant:"


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
    history = parse_history(*find("history"), on_omission)
    prompt, better, worse = _pair(find, record, on_omission)
    prompt = _with_input(prompt, *_find_input(record), on_omission)
    if history or has_system(find):
        turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        prompt = with_context(find, history, turns, on_omission)
    if better.strip() == worse.strip():
        raise UnusableRow("chosen and rejected are equal")
    if not isinstance(prompt, str):
        _check_prompt(prompt)
    return PreferencePair(prompt, better, worse, topic, tools)


def _unfolded(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return a record with messages and tools as columns, if it has OpenAI's form of a pair."""
    match record.get("input"):
        case {"messages": messages, **more}:
            return {**record, "input": None, "prompt": messages, "tools": more.get("tools")}
    return record


def _find_input(record: Mapping[str, object]) -> tuple[str, object]:
    """Return the column of what an instruction applies to, and its value."""
    return find_field("sft", "input", record, {})


def _with_input(
    prompt: str | Turns, name: str, value: object, on_omission: OnOmission
) -> str | Turns:
    context = optional_text(name, value)
    said = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
    if not context.strip() or context.strip() in map(str.strip, said):
        return prompt
    if isinstance(prompt, str):
        return join_input(prompt, context)
    on_omission(f"{name} left out, since the prompt has turns")
    return prompt


def _pair(
    find: FindField, record: Mapping[str, object], on_omission: OnOmission
) -> tuple[str | Turns, str, str]:
    """Return the prompt and both answers."""
    names = chosen_name, rejected_name = find("chosen")[0], find("rejected")[0]
    chosen, rejected = (_messages(find(field)[1]) for field in ("chosen", "rejected"))
    name, prompt = find("prompt")
    if prompt is None and isinstance(_find_input(record)[1], str):
        name, prompt = _find_input(record)
    if isinstance(prompt, str) and not prompt.strip() and isinstance(chosen, list):
        prompt = None
    if isinstance(chosen, list) and isinstance(rejected, list):
        before, better = _last_answer(chosen_name, chosen, on_omission)
        other, worse = _last_answer(rejected_name, rejected, on_omission)
        if before != other:
            raise UnusableRow(" and ".join(names) + " differ before their last answer")
        if before:
            return _joined(name, prompt, before, on_omission), better, worse
        return _prompt(name, prompt, record, on_omission, better), better, worse
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        if (turns := _conversation(record, on_omission, chosen)) is not None:
            return turns, require_text(chosen_name, chosen), require_text(rejected_name, rejected)
        return _dialogues(chosen, rejected)
    given = _prompt(name, prompt, record, on_omission, "")
    return given, require_text(chosen_name, chosen), require_text(rejected_name, rejected)


def _messages(answer: object) -> object:
    """Return an answer as a list, if it is a single message as in LLaMA-Factory's form."""
    return [answer] if isinstance(answer, dict) else answer


def _last_answer(name: str, value: object, on_omission: OnOmission) -> tuple[Turns, str]:
    """Return the turns before the last answer of a conversation, and that answer."""
    turns = up_to_last_answer(name, parse_messages(name, value, on_omission), on_omission)
    if turns[-1].tool_calls:
        raise UnusableRow(f"{name} ends with a call of a tool, not with a text")
    return turns[:-1], turns[-1].content


def _joined(name: str, prompt: object, before: Turns, on_omission: OnOmission) -> Turns:
    """Return the turns before an answer; a prompt column may repeat or precede them."""
    if isinstance(prompt, list):
        turns = parse_messages(name, prompt, on_omission)
        if before[: len(turns)] == turns:
            return before
        if before[0].role in ("system", "user"):
            raise UnusableRow(f"{name} and chosen have different turns")
        return turns + before
    if prompt is not None:
        said = {turn.content.strip() for turn in before if turn.role == "user"}
        if optional_text(name, prompt).strip() not in said:
            on_omission(f"{name} left out, since chosen has other turns before its answer")
    return before


def _prompt(
    name: str, prompt: object, record: Mapping[str, object], on_omission: OnOmission, answer: str
) -> str | Turns:
    """Return the prompt of answers that do not contain it."""
    if isinstance(prompt, list):
        return parse_messages(name, prompt, on_omission)
    if prompt is None and (turns := _conversation(record, on_omission, answer)) is not None:
        return turns
    text = require_text(name, prompt)
    if text.startswith(_QUESTION) and text.rstrip().endswith(_ANSWER):
        return _spoken(text.rstrip().removesuffix(_ANSWER))
    return text


def _conversation(
    record: Mapping[str, object], on_omission: OnOmission, answer: str
) -> Turns | None:
    """Return the turns of a conversation column beside the answers; None without one."""
    for name, value in record.items():
        if name.lower() in CONVERSATION_COLUMNS and is_conversation(value):
            turns = parse_messages(name, value, on_omission)
            repeated = turns[-1] == Message("assistant", answer)
            return turns[:-1] if repeated else turns
    return None


def _check_prompt(turns: Turns) -> None:
    check_size("prompt", turns)
    if not turns:
        raise UnusableRow("prompt is missing")
    if turns[-1].role == "assistant":
        raise UnusableRow("prompt ends with a turn of the assistant")


def _dialogues(chosen: str, rejected: str) -> tuple[str | Turns, str, str]:
    """Return the prompt and the answers of two dialogues with `Human:` and `Assistant:` turns."""
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    cut = chosen[:shared].rfind(_ANSWER)
    if cut < 0:
        raise UnusableRow(
            "prompt is missing, and chosen and rejected are not dialogues with the same beginning"
        )
    better, worse = chosen[cut + len(_ANSWER) :], rejected[cut + len(_ANSWER) :]
    if _QUESTION in better or _QUESTION in worse:
        raise UnusableRow("chosen and rejected differ before their last answer")
    answers = require_text("chosen", better.strip()), require_text("rejected", worse.strip())
    return _spoken(chosen[:cut]), *answers


def _spoken(text: str) -> str | Turns:
    """Return the turns of a dialogue, or its text if it is a single turn of the user."""
    first, *rest = re.split(r"\n\n(Human|Assistant):", text)
    spoken = list(zip(rest[::2], rest[1::2], strict=True))
    if first.strip():  # a text without a name at the beginning is the user's
        spoken.insert(0, ("Human", first))
    turns = tuple(
        Message("user" if name == "Human" else "assistant", require_text("prompt", said.strip()))
        for name, said in spoken
    )
    alone = len(turns) == 1 and turns[0].role == "user"
    return turns[0].content if alone else turns
