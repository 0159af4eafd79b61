"""The prompt template: turns an instruction and its input into the text that a model continues.

It is the Alpaca form (Taori et al. 2023), because that is what public instruction-tuned adapters
and their tools expect: an adapter trained here answers the same prompts as theirs. The response
follows the prompt directly and ends with the tokenizer's end-of-sequence token.

Data path: `learning.data.row_types` (rows) → here → `learning.objectives.tokens` (token ids).
"""

from __future__ import annotations

_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
NO_INPUT = "<noinput>"
"""What some data sets in Alpaca form write where a task has no input; means the empty input."""


def format_prompt(instruction: str, input: str = "") -> str:
    """Return the prompt of one task, up to the place where the response begins.

    An empty input, or `<noinput>`, selects the template without an input. The prompt ends with a
    line break, so that a response's first token never merges with it.
    """
    task, context = instruction.strip(), input.strip()
    if not context or context.lower() == NO_INPUT:
        return _WITHOUT_INPUT.format(instruction=task)
    return _WITH_INPUT.format(instruction=task, input=context)
