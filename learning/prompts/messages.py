"""Turns of a row in the form that chat templates read, and their adaptation to a template.

Templates differ in what they support: some refuse a system turn or consecutive turns of one role,
or ignore tools. `ADAPTATIONS` express the same content with fewer features;
`learning.prompts.structure` selects the first with which a template keeps every turn.

Data path: `learning.data.row_types` → here → `learning.prompts.rendering`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from learning.data.row_types import (
    Conversation,
    Instruction,
    Message,
    PreferencePair,
    RatedAnswer,
)
from learning.prompts.alpaca import split_task

Turn = Mapping[str, Any]
"""A message as a template reads it: `role`, `content` and perhaps `tool_calls`."""


class TemplateError(Exception):
    """A template cannot render a chat, or loses a part of it; says why in a few words."""


@dataclass(frozen=True)
class Chat:
    """Turns for a template, and definitions of the tools that the assistant may call."""

    turns: tuple[Turn, ...]
    tools: tuple[Any, ...] = ()

    def before(self, place: int) -> Chat:
        """Return the chat without the turns from `place` on."""
        return replace(self, turns=self.turns[:place])

    def answers(self) -> list[int]:
        """Return the indices of the assistant's turns."""
        return [i for i, turn in enumerate(self.turns) if turn["role"] == "assistant"]

    def up_to_last_answer(self) -> Chat:
        """Return the chat without what follows the assistant's last turn."""
        return self.before(self.answers()[-1] + 1)


PromptRow = Instruction | Conversation | PreferencePair | RatedAnswer
"""A row whose answers a causal model learns."""


def chat_of(row: Instruction | Conversation) -> Chat:
    """Return the turns of a row with all its answers.

    An instruction becomes a user's turn, with its input after a blank line. The turn also has the
    keys `instruction` and `input`, for a template that keeps them apart, as the Alpaca form does.
    """
    if isinstance(row, Conversation):
        return Chat(tuple(map(_turn, row.messages)), _tools(row.tools))
    return Chat((_task(row.instruction, row.input), _said("assistant", row.output.strip())))


def chats_of_pair(row: PreferencePair) -> tuple[Chat, Chat]:
    """Return the turns of a preference pair, with the chosen and with the rejected answer."""
    return _answered(row, row.chosen), _answered(row, row.rejected)


def chat_of_rated(row: RatedAnswer) -> Chat:
    """Return the turns of a rated answer."""
    return _answered(row, row.completion)


def _answered(row: PreferencePair | RatedAnswer, answer: str) -> Chat:
    if isinstance(row.prompt, str):
        return Chat((_task(row.prompt, ""), _said("assistant", answer.strip())), _tools(row.tools))
    return Chat((*map(_turn, row.prompt), _said("assistant", answer)), _tools(row.tools))


def prompt_of(row: PromptRow) -> Chat:
    """Return the turns of a row before its last answer."""
    match row:
        case PreferencePair():
            chat = chats_of_pair(row)[0]
        case RatedAnswer():
            chat = chat_of_rated(row)
        case _:
            chat = chat_of(row)
    return chat.before(chat.answers()[-1])


def _said(role: str, text: str) -> Turn:
    return {"role": role, "content": text}


def _task(instruction: str, input: str) -> Turn:
    task, context = split_task(instruction, input)
    text = f"{task}\n\n{context}" if context else task
    return {"role": "user", "content": text, "instruction": task, "input": context}


def _turn(message: Message) -> Turn:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        calls = json.loads(message.tool_calls)
        turn["tool_calls"] = [{"type": "function", "function": call} for call in calls]
    return turn


def _tools(definitions: str) -> tuple[Any, ...]:
    return tuple(json.loads(definitions)) if definitions else ()


def _write_tools_as_text(chat: Chat) -> Chat:
    """Return the chat with definitions, calls and results of tools as text of the turns.

    The tags are those with which many models are trained (Hermes, Qwen). Consecutive results become
    one turn of the user.
    """
    turns: list[Turn] = []
    for turn in chat.turns:
        text = str(turn["content"])
        if calls := turn.get("tool_calls"):
            lines = [f"<tool_call>\n{_json(call['function'])}\n</tool_call>" for call in calls]
            turns.append(_said("assistant", "\n".join([*filter(None, [text]), *lines])))
        elif turn["role"] == "tool":
            turns.append(_said("user", f"<tool_response>\n{text}\n</tool_response>"))
        else:
            turns.append(turn)
    if chat.tools:
        lines = ["Tools:", *map(_json, chat.tools)]
        turns = _with_system(turns, "\n".join(lines))
    return _merge_speakers(Chat(tuple(turns)))


def _with_system(turns: Sequence[Turn], text: str) -> list[Turn]:
    if turns and turns[0]["role"] == "system":
        return [_said("system", f"{turns[0]['content']}\n\n{text}"), *turns[1:]]
    return [_said("system", text), *turns]


def _merge_system(chat: Chat) -> Chat:
    """Return the chat with each system turn at the beginning of the next user turn."""
    turns = [
        _said("user", str(turn["content"])) if turn["role"] == "system" else turn
        for turn in chat.turns
    ]
    return _merge_speakers(replace(chat, turns=tuple(turns)))


def _merge_speakers(chat: Chat) -> Chat:
    """Return the chat with consecutive turns of one role joined, except results of tools."""
    turns: list[Turn] = []
    for turn in chat.turns:
        last = turns[-1] if turns else None
        if last and last["role"] == turn["role"] != "tool" and not _calls(last, turn):
            turns[-1] = _said(turn["role"], f"{last['content']}\n\n{turn['content']}")
        else:
            turns.append(turn)
    return replace(chat, turns=tuple(turns))


def _calls(*turns: Turn) -> bool:
    return any("tool_calls" in turn for turn in turns)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


Adaptation = Callable[[Chat], Chat]


def _unchanged(chat: Chat) -> Chat:
    return chat


def _plainest(chat: Chat) -> Chat:
    return _merge_system(_write_tools_as_text(chat))


def _open_with_user(chat: Chat) -> Chat:
    """Return the plainest chat with an empty user turn before an assistant that speaks first."""
    plain = _plainest(chat)
    return replace(plain, turns=(_said("user", ""), *plain.turns))


ADAPTATIONS: Sequence[Adaptation] = (
    _unchanged,
    _merge_speakers,
    _write_tools_as_text,
    _merge_system,
    _plainest,
    _open_with_user,
)
"""Ways to give a chat to a template, the most faithful first."""
