"""Spans of the assistant's answers in the text of a chat: what is learned.

An answer reaches from the end of the generation prompt to the end of its turn, including the token
that ends the turn. A template with generation marks gives the spans itself. Otherwise each prefix
of the chat is rendered, and its text must be a prefix of the whole text; if it is not, the template
moves or changes earlier turns, and labels would be wrong.

Data path: `learning.prompts.rendering` → here → `learning.prompts.form`.
"""

from __future__ import annotations

from dataclasses import dataclass

from learning.prompts.control_text import Spans
from learning.prompts.messages import Chat, TemplateError
from learning.prompts.rendering import Renderer

NOT_NESTED = "the text of earlier turns changes when later turns follow"


@dataclass(frozen=True)
class RenderedChat:
    """Text of a chat, and the spans of the answers to learn."""

    text: str
    spans: Spans  # in order; never empty


def render_answers(renderer: Renderer, chat: Chat, *, only_last: bool) -> RenderedChat:
    """Render a chat that ends with an answer, and find its answers.

    Args:
        only_last: Whether only the last answer is learned.

    Raises:
        TemplateError: The template refuses the chat, or its answers cannot be found.
    """
    answers = chat.answers()[-1:] if only_last else chat.answers()
    if renderer.marks_answers:
        text, spans = renderer.render_marked(chat)
        if only_last:
            before = _common_length(text, renderer.render(chat.before(answers[-1])))
            spans = [span for span in spans if span[0] >= before]
        if len(spans) < len(answers):
            raise TemplateError("it does not mark every turn of the assistant")
        return RenderedChat(text, spans)
    text = renderer.render(chat)
    return RenderedChat(text, [_span(renderer, chat, place, text) for place in answers])


def render_pair_answer(renderer: Renderer, chat: Chat) -> RenderedChat:
    """Render a chat that ends with an answer; the answer is what follows the prompt before it.

    Raises:
        TemplateError: The template refuses the chat, or its text does not begin with the prompt's.
    """
    text = renderer.render(chat)
    return RenderedChat(text, [_span(renderer, chat, len(chat.turns) - 1, text)])


def _span(renderer: Renderer, chat: Chat, place: int, text: str) -> tuple[int, int]:
    prompt = _prompt(renderer, chat, place, text)
    if not text.startswith(prompt):
        raise TemplateError(NOT_NESTED)
    if place == len(chat.turns) - 1:
        return len(prompt), len(text)
    answered = renderer.render(chat.before(place + 1))
    end = _common_length(text, answered)
    controls = renderer.control.finditer(answered) if renderer.control else iter(())
    for found in controls:
        if found.start() < end < found.end():
            end = found.start()  # two control strings with a common prefix
    # A template may add a control string to the end of the text only, as Phi-3's does.
    rest = renderer.control.sub("", answered[end:]) if renderer.control else answered[end:]
    if end <= len(prompt) or rest.strip():
        raise TemplateError(NOT_NESTED)
    if end < len(answered):
        end += _length_of_end(renderer, chat.before(place), text[end:])
    return len(prompt), end


def _length_of_end(renderer: Renderer, before: Chat, text: str) -> int:
    """Return how much of a text is the end of a turn, as it ends the turns before.

    A template may end the last answer with one token, and earlier answers as any other turn with
    another one, as that of gpt-oss does.
    """
    found = renderer.control.match(text) if renderer.control else None
    if found is None or not before.turns:
        return 0
    ended = renderer.render(before)
    at = ended.rfind(found[0])
    return len(ended) - at if at >= 0 and text.startswith(ended[at:]) else 0


def _prompt(renderer: Renderer, chat: Chat, place: int, text: str) -> str:
    """Return the text up to an answer.

    Templates need at least one turn before a generation prompt. For an answer without one, the
    generation prompt after a question is looked up in the text.
    """
    if place:
        return renderer.render(chat.before(place), generation_prompt=True)
    question = Chat(({"role": "user", "content": "word"},))
    prompt = renderer.render(question, generation_prompt=True)
    header = prompt[_common_length(prompt, renderer.render(question)) :]
    if not header or header not in text:
        raise TemplateError("it cannot begin with the assistant")
    return text[: text.index(header) + len(header)]


def _common_length(text: str, other: str) -> int:
    """Return the length of the common prefix of two texts."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(text), len(other)))
