"""Rendering of a chat template, in the sandbox of transformers.

A template comes with a model, or from the coordinator: it is foreign code, and whatever it does
wrong is a `TemplateError` here.

Data path: `learning.prompts.messages` → here → `learning.prompts.spans`.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from common.protocol.tasks import PromptSpec
from learning.prompts.control_text import Spans, control_pattern
from learning.prompts.messages import Chat

_LOCK = threading.Lock()
"""Compiled templates are shared by a process, and they hold the places that they find."""
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
GENERATION = "endgeneration"
"""A template that marks the assistant's turns has `{% generation %}` … `{% endgeneration %}`."""


def has_markers(template: str) -> bool:
    """Return whether a template marks the assistant's turns; what comments say does not count."""
    return GENERATION in _COMMENT.sub("", template)


class TemplateError(Exception):
    """A template cannot render a chat; says why in a few words."""


@dataclass(frozen=True)
class Renderer:
    """A chat template with the variables that it is given."""

    template: str
    variables: dict[str, Any]  # the special tokens, and which turns are learned
    control: re.Pattern[str] | None  # control strings of the tokenizer

    @property
    def marks_answers(self) -> bool:
        return has_markers(self.template)

    def render(self, chat: Chat, *, asks: bool = False) -> str:
        """Return the text of a chat.

        Args:
            asks: Whether the beginning of an answer follows.

        Raises:
            TemplateError: The template refuses the chat, or fails.
        """
        return self._render(chat, asks, spans=False)[0]

    def render_marked(self, chat: Chat) -> tuple[str, Spans]:
        """Return the text of a chat and the places in it that the template marks as answers.

        Raises:
            TemplateError: The template refuses the chat, or fails.
        """
        return self._render(chat, False, spans=True)

    def _render(self, chat: Chat, asks: bool, spans: bool) -> tuple[str, Spans]:
        render: Any = render_jinja_template  # whose annotations are of an older form
        try:
            with _LOCK:
                texts, found = render(
                    conversations=[list(chat.turns)],
                    tools=list(chat.tools) or None,
                    chat_template=self.template,
                    add_generation_prompt=asks,
                    return_assistant_tokens_mask=spans,
                    **self.variables,
                )
        except Exception as error:  # Jinja's own, and whatever the template's expressions raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise TemplateError(reason[:200]) from None
        return texts[0], [(begin, end) for begin, end in found[0]] if spans else []


def make_renderer(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec) -> Renderer:
    """Return the renderer of a run's template with a tokenizer's special tokens."""
    variables = {**tokenizer.special_tokens_map, "turns": spec.turns}
    return Renderer(spec.template, variables, control_pattern(tokenizer))
