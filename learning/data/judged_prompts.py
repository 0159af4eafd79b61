"""Parts of the parsers of judged answers: the prompt of an answer, in texts or in turns.

In the data path: shared by `learning.data.preference_parser` (pairs) and
`learning.data.rating_parser` (single answers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from learning.data.field_values import OnOmission, UnusableRow, optional_text, require_text
from learning.data.message_parser import (
    check_size,
    is_conversation,
    parse_history,
    parse_messages,
    up_to_last_answer,
)
from learning.data.row_parser import (
    CONVERSATION_COLUMNS,
    FindField,
    Turns,
    find_field,
    has_system,
    join_input,
    with_context,
)
from learning.data.row_types import Message

QUESTION, ANSWER = "\n\nHuman:", "\n\nAssistant:"
"""Names of the speakers in texts of Anthropic's form."""


def find_input(record: Mapping[str, object]) -> tuple[str, object]:
    """Return the column of what an instruction applies to, and its value."""
    return find_field("sft", "input", record, {})


def find_prompt(find: FindField, record: Mapping[str, object]) -> tuple[str, object]:
    """Return the column of the prompt and its value; an input without one is a prompt."""
    name, prompt = find("prompt")
    if prompt is None and isinstance(find_input(record)[1], str):
        return find_input(record)
    return name, prompt


def complete_prompt(
    find: FindField, record: Mapping[str, object], prompt: str | Turns, on_omission: OnOmission
) -> str | Turns:
    """Return a prompt with the input, the earlier turns and the system prompt of its record.

    Raises:
        UnusableRow: One of them cannot be used, or the prompt does not ask for an answer.
    """
    history = parse_history(*find("history"), on_omission)
    prompt = _with_input(prompt, *find_input(record), on_omission)
    if history or has_system(find):
        turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        prompt = with_context(find, history, turns, on_omission)
    if not isinstance(prompt, str):
        _check_turns(prompt)
    return prompt


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


def as_messages(answer: object) -> object:
    """Return an answer as a list, if it is a single message as in LLaMA-Factory's form."""
    return [answer] if isinstance(answer, dict) else answer


def split_last_answer(name: str, value: object, on_omission: OnOmission) -> tuple[Turns, str]:
    """Return the turns before the last answer of a conversation, and that answer."""
    turns = up_to_last_answer(name, parse_messages(name, value, on_omission), on_omission)
    if turns[-1].tool_calls:
        raise UnusableRow(f"{name} ends with a call of a tool, not with a text")
    return turns[:-1], turns[-1].content


def join_prompt(
    name: str, prompt: object, answer: str, before: Turns, on_omission: OnOmission
) -> Turns:
    """Return the turns before an answer in column `answer`; a prompt may repeat or precede them.

    Raises:
        UnusableRow: Prompt and answer are different conversations.
    """
    if isinstance(prompt, list):
        turns = parse_messages(name, prompt, on_omission)
        if before[: len(turns)] == turns:
            return before
        if before[0].role in ("system", "user"):
            raise UnusableRow(f"{name} and {answer} have different turns")
        return turns + before
    if prompt is not None:
        said = {turn.content.strip() for turn in before if turn.role == "user"}
        if optional_text(name, prompt).strip() not in said:
            on_omission(f"{name} left out, since {answer} has other turns before its answer")
    return before


def parse_prompt(
    name: str, prompt: object, record: Mapping[str, object], on_omission: OnOmission, answer: str
) -> str | Turns:
    """Return the prompt of answers that do not contain it."""
    if isinstance(prompt, list):
        return parse_messages(name, prompt, on_omission)
    if prompt is None and (turns := conversation_beside(record, on_omission, answer)) is not None:
        return turns
    text = require_text(name, prompt)
    if text.startswith(QUESTION) and text.rstrip().endswith(ANSWER):
        return parse_dialogue(text.rstrip().removesuffix(ANSWER))
    return text


def conversation_beside(
    record: Mapping[str, object], on_omission: OnOmission, answer: str
) -> Turns | None:
    """Return the turns of a conversation column beside the answers; None without one."""
    for name, value in record.items():
        if name.lower() in CONVERSATION_COLUMNS and is_conversation(value):
            turns = parse_messages(name, value, on_omission)
            repeated = turns[-1] == Message("assistant", answer)
            return turns[:-1] if repeated else turns
    return None


def _check_turns(turns: Turns) -> None:
    check_size("prompt", turns)
    if not turns:
        raise UnusableRow("prompt is missing")
    if turns[-1].role == "assistant":
        raise UnusableRow("prompt ends with a turn of the assistant")


def parse_dialogue(text: str) -> str | Turns:
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
