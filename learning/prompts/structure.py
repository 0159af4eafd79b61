"""Check that a template keeps the turns of a chat's structure.

Errors of templates (a dropped turn, a moved system turn, a refusal of consecutive turns of one
role) depend on the sequence of roles, seldom on the texts. So every structure that occurs in rows
is tested once, with a unique word in each turn: all words must appear, in order, and the learned
spans must contain the words of the answers and no others.

Data path: used by `learning.prompts.form`, once for each structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from learning.prompts.messages import ADAPTATIONS, Adaptation, Chat, TemplateError, Turn
from learning.prompts.rendering import Renderer
from learning.prompts.spans import render_answers

Structure = tuple[tuple[str, bool, bool, bool], ...]
"""Role of each turn, and whether it has text, an input, and calls of tools.

The first entry has the role `tools` if there are definitions of tools.
"""


def structure_of(chat: Chat) -> Structure:
    turns = tuple(
        (turn["role"], bool(turn["content"]), bool(turn.get("input")), "tool_calls" in turn)
        for turn in chat.turns
    )
    return (("tools", False, False, False), *turns) if chat.tools else turns


@dataclass(frozen=True)
class Fit:
    """Adaptation of the chats of a structure to a template; or the reason why there is none."""

    adaptation: Adaptation | None
    problem: str = ""


def fit_structure(renderer: Renderer, structure: Structure, *, only_last: bool) -> Fit:
    """Return the first adaptation with which a template keeps every turn of a structure."""
    probe = _probe(structure)
    first = ""
    for adaptation in ADAPTATIONS:
        try:
            _check(renderer, probe, adaptation(probe), only_last)
            return Fit(adaptation)
        except TemplateError as error:
            first = first or str(error)
    return Fit(None, first)


def _word(place: int) -> str:
    return f"word{place}q"


def _probe(structure: Structure) -> Chat:
    """Return a chat of a structure that has one word in each of its parts."""
    tools: tuple[Any, ...] = ()
    if structure and structure[0][0] == "tools":
        structure = structure[1:]
        tool = {"name": _word(len(structure)), "description": "", "parameters": {}}
        tools = ({"type": "function", "function": tool},)
    turns: list[Turn] = []
    for place, (role, text, context, calls) in enumerate(structure):
        turn: dict[str, Any] = {"role": role, "content": _word(place) if text else ""}
        if context:
            turn |= {"content": f"x\n\n{_word(place)}", "instruction": "x", "input": _word(place)}
        if calls:
            call = {"name": f"call{place}q", "arguments": {"a": 1}}
            turn["tool_calls"] = [{"type": "function", "function": call}]
        turns.append(turn)
    return Chat(tuple(turns), tools)


def _check(renderer: Renderer, probe: Chat, adapted: Chat, only_last: bool) -> None:
    """Raise `TemplateError` if the text of a probe lacks a turn, or the wrong turns are learned."""
    rendered = render_answers(renderer, adapted, only_last=only_last)
    learned = "\n".join(rendered.text[begin:end] for begin, end in rendered.spans)
    last = len(probe.turns) - 1
    at = 0
    for place, turn in enumerate(probe.turns):
        is_learned = turn["role"] == "assistant" and (place == last or not only_last)
        for word in _words(place, turn):
            at = rendered.text.find(word, at)
            if at < 0:
                kind = "drops" if word not in rendered.text else "moves"
                raise TemplateError(f"it {kind} a turn of the {turn['role']}")
            if (word in learned) != is_learned:
                raise TemplateError("its answers cannot be located")
    if probe.tools and _word(len(probe.turns)) not in rendered.text:
        raise TemplateError("it has no place for definitions of tools")


def _words(place: int, turn: Turn) -> Sequence[str]:
    text = [_word(place)] if turn["content"] else []
    return [*text, f"call{place}q"] if "tool_calls" in turn else text


def first_problem(renderer: Renderer, structures: Sequence[Structure], *, only_last: bool) -> str:
    """Return why a template cannot be used for one of some structures; empty if it can for all."""
    fits = (fit_structure(renderer, each, only_last=only_last) for each in structures)
    return next((fit.problem for fit in fits if fit.adaptation is None), "")
