"""Tiny models that have learned to answer in a chat form, with the settings that bases bring.

Their chat templates are written here from the public descriptions of the forms.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from common.protocol.tasks import PromptSpec
from learning.data.row_types import Conversation, Instruction
from learning.objectives import registry
from learning.prompts.choice import choose_prompt
from tests.support.tiny_model import tiny_model, tiny_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


@dataclass(frozen=True)
class ChatForm:
    """Tokens and template of a tokenizer."""

    template: str | None
    special: tuple[str, ...] = ()  # besides <|end|>, which has id 0
    eos: str = "<|end|>"
    pad: str | None = None


FORMS = {
    "smollm2": ChatForm(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", "<|im_end|>"),
    "qwen2.5 base": ChatForm(CHATML, ("<|im_start|>", "<|im_end|>"), pad="<|end|>"),
    "llama 3": ChatForm(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "gemma": ChatForm(GEMMA, ("<start_of_turn>", "<end_of_turn>", "<pad>"), pad="<pad>"),
    "gpt2": ChatForm(None),
}


def chat_tokenizer(form: ChatForm) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(form.special)})
    tokenizer.eos_token, tokenizer.pad_token = form.eos, form.pad
    tokenizer.chat_template = form.template
    return tokenizer


def chosen_prompt(tokenizer: PreTrainedTokenizerFast, setting: str = "auto") -> PromptSpec:
    return choose_prompt(setting, tokenizer, ["all"], date(2026, 11, 27))


def trained_model(
    tokenizer: PreTrainedTokenizerFast,
    prompt: PromptSpec | None,
    rows: Sequence[Instruction | Conversation],
) -> GPT2LMHeadModel:
    """Return a model that knows the answers of a few rows by heart."""
    objective = registry.make_objective("sft", prompt=prompt)
    batch = objective.collate(objective.encode(tokenizer, rows, 256).examples)
    model = tiny_model(len(tokenizer)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(60):
            loss, _ = objective.loss(model, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def save_base(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    config: dict[str, Any],
    generation: dict[str, Any],
) -> Path:
    """Write a base model whose settings have these values; None removes a key."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, changes in (("config.json", config), ("generation_config.json", generation)):
        file = folder / name
        fields = {**json.loads(file.read_text()), **changes}
        kept = {key: value for key, value in fields.items() if value is not None}
        file.write_text(json.dumps(kept))
    return folder
