"""Parser of conversations in the forms of common data sets.

A list of messages has OpenAI's keys (`role`, `content`), ShareGPT's (`from`, `value`), or a
question and its answer per entry. Contents are kept unchanged, including white space; calls and
definitions of tools become JSON text. Other content of a message is left out and reported.

In the data path: used by `learning.data.row_parser`. `messages_to_json` is the inverse, for
`learning.data.rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from learning.data.field_values import (
    OnOmission,
    UnusableRow,
    ignore_omission,
    optional_text,
    refuse_media,
)
from learning.data.row_types import MAX_CHARS, Message, Role

MAX_TURNS = 1000
"""Limit of the turns of a conversation."""
MAX_CONVERSATION = 8 * MAX_CHARS
"""Limit of the characters of all turns of a conversation together."""

_ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "ai": "assistant", "chatbot": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "claude": "assistant", "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
    "tool_response": "tool", "function_response": "tool", "function_result": "tool",
}  # fmt: skip
_CALL = "function_call"  # ShareGPT's role of a turn, or OpenAI's former field of one
_ROLE_KEYS, _TEXT_KEYS = ("role", "from"), ("content", "value", "text")
_EXCHANGES = (
    ("human", "assistant"), ("user", "assistant"), ("input", "output"), ("prompt", "response"),
    ("question", "answer"), ("instruction", "output"),
)  # fmt: skip
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_EMPTY: tuple[object, ...] = (None, "", [], {}, ())


def as_list(value: object) -> list[object] | None:
    """Return a list in any form that tables have; None for an empty list or another value.

    CSV files have lists as JSON text, and some Parquet files as a mapping of columns.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    return value if isinstance(value, list) and value else None


def is_conversation(value: object) -> bool:
    """Return whether a value has the form of a list of messages."""
    listed = as_list(value)
    return listed is not None and all(isinstance(each, dict) for each in listed)


def parse_messages(
    name: str, value: object, on_omission: OnOmission = ignore_omission
) -> tuple[Message, ...]:
    """Return the turns of a conversation in their order.

    Args:
        name: Name of the column, for error messages.
        on_omission: Called with each kind of content that is left out.

    Raises:
        UnusableRow: The value is not a list of messages, or one of them cannot be used.
    """
    listed = as_list(value)
    if listed is None:
        raise UnusableRow(f"{name} is not a list of messages")
    turns = tuple(turn for each in listed for turn in _turns(name, each, on_omission))
    check_size(name, turns)
    return turns


def check_size(name: str, turns: Iterable[Message]) -> None:
    """Raise `UnusableRow` if a conversation is far longer than any model's context."""
    sizes = [len(turn.content) + len(turn.tool_calls) for turn in turns]
    if len(sizes) > MAX_TURNS:
        raise UnusableRow(f"{name} has {len(sizes)} turns, more than {MAX_TURNS}")
    if sum(sizes) > MAX_CONVERSATION:
        raise UnusableRow(f"{name} has {sum(sizes)} characters, more than {MAX_CONVERSATION}")


def up_to_last_answer(
    name: str, turns: tuple[Message, ...], on_omission: OnOmission
) -> tuple[Message, ...]:
    """Return the turns up to the last answer of the assistant; later turns are not learned."""
    count = max((i for i, turn in enumerate(turns, 1) if turn.role == "assistant"), default=0)
    if not count:
        raise UnusableRow(f"{name} has no answer of the assistant")
    if count < len(turns):
        on_omission("turns after the last answer left out")
    return turns[:count]


def parse_history(
    name: str, value: object, on_omission: OnOmission = ignore_omission
) -> tuple[Message, ...]:
    """Return earlier turns, given as pairs of question and answer or as messages."""
    listed = as_list(value)
    if listed is None:
        if value in _EMPTY or (isinstance(value, str) and value.strip() in ("", "[]")):
            return ()
        raise UnusableRow(f"{name} is not a list of earlier exchanges")
    turns: list[Message] = []
    for each in listed:
        turn = each
        if isinstance(each, list) and len(each) == 2:
            turn = {"user": each[0], "assistant": each[1]}
        if not isinstance(turn, dict):
            raise UnusableRow(f"{name} is not a list of earlier exchanges")
        turns += _turns(name, turn, on_omission)
    return tuple(turns)


def parse_tools(name: str, value: object) -> str:
    """Return definitions of tools as a JSON list; an empty text if there are none."""
    value = _decoded(f"{name} is not a JSON list of definitions", value)
    if value in _EMPTY:
        return ""
    listed = value if isinstance(value, list) else [value]
    tools = [_decoded(f"{name} has a definition that is not JSON", each) for each in listed]
    if not all(isinstance(each, dict) for each in tools):
        raise UnusableRow(f"{name} is not a JSON list of definitions")
    return _json(name, tools)


def join_parts(name: str, value: object, on_omission: OnOmission = ignore_omission) -> str:
    """Return a text, or the joined text of a list of parts; None becomes the empty text."""
    parts = value if isinstance(value, list) else [value]
    return optional_text(name, "".join(_part(name, part, on_omission) for part in parts))


def messages_to_json(turns: Iterable[Message]) -> list[dict[str, str]]:
    """Return turns as JSON values that `parse_messages` reads back."""
    return [
        {"role": turn.role, "content": turn.content}
        | ({"tool_calls": turn.tool_calls} if turn.tool_calls else {})
        for turn in turns
    ]


def _turns(name: str, message: object, on_omission: OnOmission) -> Iterator[Message]:
    """Yield the turn of a message, or both turns of an exchange."""
    if not isinstance(message, dict):
        raise UnusableRow(f"{name} is not a list of messages")
    refuse_media({key: value for key, value in message.items() if isinstance(key, str)})
    speaker = next((message[key] for key in _ROLE_KEYS if message.get(key) is not None), None)
    if speaker is not None:
        yield _turn(name, speaker, message, on_omission)
        return
    turn_of = f"a turn of {name}"
    for user, assistant in _EXCHANGES:
        if user in message and assistant in message:
            yield _checked(name, Message("user", join_parts(turn_of, message[user])))
            yield _checked(name, Message("assistant", join_parts(turn_of, message[assistant])))
            return
    raise UnusableRow(f"{name} has a message without a role")


def _turn(
    name: str, speaker: object, message: Mapping[str, object], on_omission: OnOmission
) -> Message:
    called = speaker.strip().lower() if isinstance(speaker, str) else ""
    if called not in _ROLES:
        raise UnusableRow(f"{name} has a message of an unknown role")
    role = _ROLES[called]
    value = next((message[key] for key in _TEXT_KEYS if message.get(key) is not None), None)
    calls: object = message.get("tool_calls")
    if calls in _EMPTY and message.get(_CALL) not in _EMPTY:
        calls = message[_CALL]
    if called == _CALL:
        value, calls = None, value
    if role == "tool" and isinstance(value, dict) and "type" not in value:
        value = _json(name, value)  # the return value of a function
    content = join_parts(f"a turn of {name}", value, on_omission)
    if role == "assistant":
        _refuse_unlearned(name, message)
    if any(message.get(key) not in _EMPTY for key in _REASONING):
        on_omission("reasoning left out")
    if message.get("name") not in _EMPTY:
        on_omission("names of speakers or tools left out")
    calls_text = _tool_calls(name, calls) if role == "assistant" else ""
    return _checked(name, Message(role, content, calls_text))


def _refuse_unlearned(name: str, message: Mapping[str, object]) -> None:
    """Raise `UnusableRow` for an answer that is marked as not to be learned."""
    marked = any(message.get(key) is False for key in ("train", "training"))
    if marked or message.get("weight") in (0, "0"):
        raise UnusableRow(f"{name} has an answer that is marked as not to be learned")


def _checked(name: str, turn: Message) -> Message:
    """Return a turn; raise `UnusableRow` if it is an empty turn of the user or the assistant."""
    if not turn.content.strip() and not turn.tool_calls:
        if turn.role == "assistant":
            raise UnusableRow(f"{name} has an empty answer")
        if turn.role == "user":
            raise UnusableRow(f"{name} has an empty turn of the user")
    return turn


def _part(name: str, part: object, on_omission: OnOmission) -> str:
    if isinstance(part, dict):
        if part.get("type") in ("thinking", "reasoning"):
            on_omission("reasoning left out")
            return ""
        if part.get("type") not in _TEXT_PARTS or part.get("text") is None:
            raise UnusableRow(f"{name} has a part that is not text, such as an image")
        part = part["text"]
    return optional_text(name, part)


def _tool_calls(name: str, value: object) -> str:
    """Return calls of tools as a JSON list of names and arguments; "" if there are none."""
    wrong = f"{name} has a call of a tool that cannot be read"
    value = _decoded(wrong, value)
    if value in _EMPTY:
        return ""
    calls = []
    for each in value if isinstance(value, list) else [value]:
        call = _decoded(wrong, each)
        call = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise UnusableRow(wrong)
        arguments = call.get("arguments", call.get("parameters"))
        calls.append({"name": call["name"], "arguments": _arguments(arguments)})
    return _json(name, calls)


def _arguments(value: object) -> object:
    """Return the arguments of a call; JSON text of an object becomes that object."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if isinstance(found, dict) else value
    return value


def _decoded(wrong: str, value: object) -> object:
    """Return a value, parsed if it is JSON text; None for an empty text."""
    if not isinstance(value, str) or not value.strip():
        return None if isinstance(value, str) else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise UnusableRow(wrong) from None


def _json(name: str, value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise UnusableRow(f"{name} has a value that JSON cannot hold") from None
    return optional_text(f"JSON of {name}", text)
