"""Rendering of a chat template in the sandbox of transformers.

A template comes with a model or from the coordinator. It is foreign code, so every error that it
raises becomes a `TemplateError`.

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
from learning.prompts.messages import Chat, TemplateError

_LOCK = threading.Lock()
"""Threads of a process share compiled templates, which store the spans of the last rendering."""
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
GENERATION = "endgeneration"
"""Part of a template that marks answers by `{% generation %}` … `{% endgeneration %}`."""


def has_markers(template: str) -> bool:
    """Return whether a template marks the assistant's turns, outside its comments."""
    return GENERATION in _COMMENT.sub("", template)


@dataclass(frozen=True)
class Renderer:
    """A chat template with its variables."""

    template: str
    variables: dict[str, Any]  # the special tokens, and which turns are learned
    control: re.Pattern[str] | None  # control strings of the tokenizer

    @property
    def marks_answers(self) -> bool:
        return has_markers(self.template)

    def render(self, chat: Chat, *, generation_prompt: bool = False) -> str:
        """Return the text of a chat.

        Args:
            generation_prompt: Whether to append the beginning of an assistant's turn.

        Raises:
            TemplateError: The template refuses the chat, or fails.
        """
        return self._render(chat, generation_prompt, spans=False)[0]

    def render_marked(self, chat: Chat) -> tuple[str, Spans]:
        """Return the text of a chat, and the spans that the template marks as answers.

        Raises:
            TemplateError: The template refuses the chat, or fails.
        """
        return self._render(chat, False, spans=True)

    def _render(self, chat: Chat, generation_prompt: bool, spans: bool) -> tuple[str, Spans]:
        render: Any = render_jinja_template  # its annotations are too narrow
        try:
            with _LOCK:
                texts, found = render(
                    conversations=[list(chat.turns)],
                    tools=list(chat.tools) or None,
                    chat_template=self.template,
                    add_generation_prompt=generation_prompt,
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
