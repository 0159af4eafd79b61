"""Choice of a run's prompt form, when the run is prepared.

A template is accepted only if it keeps every turn and its answers can be located. For some families
`templates/` has a template with generation marks, which replaces the model's own if both render the
same text.

Data path: `preparation.data` → here → `common.protocol.tasks.PromptSpec`, which travels with every
task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from common.errors import ConfigError, ModelError
from common.protocol.tasks import MAX_TEMPLATE, LearnedTurns, PromptSpec
from learning.prompts.form import REMEDY, PromptForm, alpaca_spec
from learning.prompts.messages import Chat, TemplateError
from learning.prompts.rendering import has_markers, make_renderer
from learning.prompts.structure import Structure, first_problem

_SHIPPED = ("qwen2_5", "qwen3")  # files in templates/

_USER, _ANSWER, _SYSTEM = ((role, True, False, False) for role in ("user", "assistant", "system"))
_NEEDED: Sequence[Structure] = (
    (_USER, _ANSWER),
    (_USER, _ANSWER, _USER, _ANSWER),
    (_USER, _ANSWER, _USER, _ANSWER, _USER, _ANSWER),
)
_DATE = re.compile(r"strftime_now\(\s*(?P<quote>['\"])(?P<format>.*?)(?P=quote)\s*\)")


def choose_prompt(
    setting: str, tokenizer: PreTrainedTokenizerBase, turns: Sequence[LearnedTurns], today: date
) -> PromptSpec:
    """Return the prompt form of a run.

    Args:
        setting: `model.prompt`: `auto`, `alpaca`, `chat`, or the path of a Jinja file.
        turns: `turns` of the phases that learn from conversations; empty if there are none.
        today: The date that a template inserts; it stays the same for the whole run.

    Raises:
        ConfigError: The file cannot be read.
        ModelError: The template cannot be used, or the tokenizer has none.
    """
    template = _find(setting, tokenizer)
    if template is None:
        spec = alpaca_spec(tokenizer)
    else:
        fixed = _with_date(template, today)
        if (size := len(fixed.encode())) > MAX_TEMPLATE:
            raise ModelError(
                f"the chat template has {size} bytes, more than {MAX_TEMPLATE}", REMEDY
            )
        spec = PromptSpec(template=_shipped_for(fixed, tokenizer) or fixed)
        _check(spec, tokenizer, turns)
    spec = spec.model_copy(update={"turns": turns[0] if turns else "all"})
    _ = PromptForm(tokenizer, spec).end_ids  # raises if a model could not learn to stop
    return spec


def _find(setting: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the template that a setting names; None for the Alpaca form."""
    if setting == "alpaca":
        return None
    own: Any = tokenizer.chat_template or None
    if isinstance(own, dict) and "default" not in own and setting in ("auto", "chat"):
        raise ModelError(
            f"the tokenizer has chat templates named {', '.join(own)}, but none named default",
            REMEDY,
        )
    if isinstance(own, dict):
        own = own.get("default")
    match setting:
        case "auto":
            return None if own is None else str(own)
        case "chat":
            if own is None:
                raise ModelError(
                    "model.prompt is chat, but the model's tokenizer has no chat template", REMEDY
                )
            return str(own)
    try:
        text = Path(setting).expanduser().read_text(encoding="utf-8")
        if text.strip():
            return text
        raise ConfigError(
            f"model.prompt {setting} is an empty file",
            'set it to "auto", "chat", "alpaca" or the path of a Jinja file',
        )
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"model.prompt {setting} cannot be read: {reason}",
            'set it to "auto", "chat", "alpaca" or the path of a Jinja file',
        ) from None


def _with_date(template: str, today: date) -> str:
    """Return a template that inserts the same date whenever it is rendered.

    Raises:
        ModelError: The template formats the date in a way that cannot be replaced.
    """
    fixed = _DATE.sub(lambda found: repr(today.strftime(found["format"])), template)
    if re.search(r"strftime_now\s*\(", fixed):
        raise ModelError(
            "the chat template inserts the date in a format that is not a literal text", REMEDY
        )
    return fixed


def _shipped_for(template: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a template of `templates/` that renders the same text; None if there is none."""
    if has_markers(template):
        return None
    expected = _texts(PromptSpec(template=template, turns="last"), tokenizer)
    for name in _SHIPPED:
        own = files("learning.prompts").joinpath("templates", f"{name}.jinja").read_text("utf-8")
        if expected and _texts(PromptSpec(template=own, turns="last"), tokenizer) == expected:
            return own
    return None


def _texts(spec: PromptSpec, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the text of sample chats; empty if a template refuses one."""
    renderer = make_renderer(tokenizer, spec)
    try:
        return [
            renderer.render(chat, generation_prompt=each)
            for chat in _SAMPLES
            for each in (False, True)
        ]
    except TemplateError:
        return []


def _check(
    spec: PromptSpec, tokenizer: PreTrainedTokenizerBase, turns: Sequence[LearnedTurns]
) -> None:
    """Raise `ModelError` if a template cannot be used with one of the settings of `turns`."""
    for each in dict.fromkeys(turns or ("last",)):
        renderer = make_renderer(tokenizer, spec.model_copy(update={"turns": each}))
        problem = first_problem(renderer, _NEEDED, only_last=each == "last")
        if not problem:
            continue
        remedy = REMEDY
        if each == "all":
            last = make_renderer(tokenizer, spec.model_copy(update={"turns": "last"}))
            if not first_problem(last, _NEEDED, only_last=True):
                remedy = f'set phase.turns to "last", or {REMEDY}'
        raise ModelError(f"the chat template cannot be used for training: {problem}", remedy)


def _chat(*turns: tuple[str, str], tools: bool = False) -> Chat:
    messages = tuple({"role": role, "content": text} for role, text in turns)
    return Chat(messages, (_TOOL,) if tools else ())


_TOOL = {"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"a": 1}}}],
}
_SAMPLES = (
    _chat(("user", "one")),
    _chat(("user", "one"), ("assistant", "two")),
    _chat(("system", "zero"), ("user", "one"), ("assistant", "two")),
    _chat(("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")),
    _chat(("system", "zero"), ("user", "one"), ("assistant", "two"), ("user", "three")),
    Chat(
        (
            {"role": "user", "content": "one"},
            _CALL,
            {"role": "tool", "content": "two"},
            {"role": "assistant", "content": "three"},
        ),
        (_TOOL,),
    ),
)
