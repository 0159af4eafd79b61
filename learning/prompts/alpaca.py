"""The Alpaca form: the prompt of a model that has no chat template of its own.

It is that of Taori et al. 2023, because public instruction-tuned adapters and their tools expect
it. Later turns, which the original does not have, repeat its headings. The chat template says the
same as `format_prompt`, for whole conversations.

Data path: `learning.prompts.choice` takes it for models without a chat template.
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
"""What some data sets in Alpaca form write where a task has no input; means the empty input."""


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
        begins: Whether a text begins with the begin-of-sequence token, as the tokenizer decides for
            plain text.
    """
    text = files("learning.prompts").joinpath("templates", "alpaca.jinja").read_text("utf-8")
    begin = "{{- bos_token }}\n" if begins else ""
    preambles = {"WITH_INPUT": _WITH_INPUT, "WITHOUT_INPUT": _WITHOUT_INPUT}
    for name, preamble in preambles.items():
        text = text.replace(f"'{name}'", repr(preamble))
    return begin + text
