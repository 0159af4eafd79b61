"""The Alpaca form: the prompt form of a model without a chat template.

It is the form of Taori et al. 2023, which public instruction-tuned adapters and their tools expect.
Later turns, which the original does not have, repeat its headings. `format_prompt` writes a single
task, `chat_template` whole conversations in the same form.

Data path: `learning.prompts.choice` uses it for models without a chat template.
"""

from __future__ import annotations

from importlib.resources import files

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n"
)
NO_INPUT = "<noinput>"
"""Placeholder of some data sets for a task without input."""


def split_task(instruction: str, input: str) -> tuple[str, str]:
    """Return an instruction and its input without white space around them.

    An input of `<noinput>` counts as empty.
    """
    context = input.strip()
    return instruction.strip(), "" if context.lower() == NO_INPUT else context


def format_prompt(instruction: str, input: str = "") -> str:
    """Return the prompt of one task, up to the place where the response begins."""
    task, context = split_task(instruction, input)
    if not context:
        return f"{_WITHOUT_INPUT}### Instruction:\n{task}\n\n### Response:\n"
    return f"{_WITH_INPUT}### Instruction:\n{task}\n\n### Input:\n{context}\n\n### Response:\n"


def chat_template(begins: bool) -> str:
    """Return the Alpaca form as a chat template in Jinja.

    Args:
        begins: Whether texts begin with the begin-of-sequence token.
    """
    text = files("learning.prompts").joinpath("templates", "alpaca.jinja").read_text("utf-8")
    begin = "{{- bos_token }}\n" if begins else ""
    preambles = {"WITH_INPUT": _WITH_INPUT, "WITHOUT_INPUT": _WITHOUT_INPUT}
    for name, preamble in preambles.items():
        text = text.replace(f"'{name}'", repr(preamble))
    return begin + text
