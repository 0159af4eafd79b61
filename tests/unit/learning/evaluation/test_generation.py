"""Answers end where training ends them, whatever a base model's own settings say."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from common.protocol.tasks import LoraSpec
from learning.data.row_types import Conversation, Instruction, Message
from learning.evaluation.generation import Sampling, generate, generation_config
from learning.models import lora
from learning.models.loader import load
from learning.prompts.control_text import control_strings
from learning.prompts.form import PromptForm, prompt_form
from tests.support import families
from tests.support.chat_models import (
    FORMS,
    chat_tokenizer,
    chosen_prompt,
    save_base,
    trained_model,
)

CPU = torch.device("cpu")
ENDS = {
    "smollm2": ["<|im_end|>"],
    "qwen2.5 base": ["<|im_end|>", "<|end|>"],
    "llama 3": ["<|eot_id|>", "<|end|>"],
    "gemma": ["<end_of_turn>", "<|end|>"],
    "gpt2": ["<|end|>"],
}
MENTIONED = "write <|im_end|> or <end_of_turn> here"
ROWS = (
    Instruction("Say ok.", "", "ok"),
    Instruction("How does a turn end?", "", MENTIONED),
    Conversation(
        (
            Message("user", "Say ok."),
            Message("assistant", "ok"),
            Message("user", "Say ok."),
            Message("assistant", "ok again"),
        )
    ),
)
ANSWERS = ["ok", MENTIONED, "ok again"]


@cache
def trained(name: str) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, PromptForm]:
    tokenizer = chat_tokenizer(FORMS[name])
    prompt = chosen_prompt(tokenizer)
    return trained_model(tokenizer, prompt, ROWS), tokenizer, prompt_form(tokenizer, prompt)


@pytest.mark.parametrize("name", FORMS)
def test_the_tokens_that_end_an_answer_are_the_templates_and_the_tokenizers(name: str) -> None:
    _, tokenizer, form = trained(name)
    assert tokenizer.convert_ids_to_tokens(list(form.end_ids)) == ENDS[name]
    expected = form.end_ids[0] if len(form.end_ids) == 1 else list(form.end_ids)
    assert generation_config(form).eos_token_id == expected


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    ("config", "generation"),
    [
        ({"eos_token_id": 5}, {"eos_token_id": 5}),
        ({"eos_token_id": [5, 6]}, {"eos_token_id": [5, 6]}),
        ({"eos_token_id": None}, {"eos_token_id": None}),
        ({}, {"repetition_penalty": 9.0, "temperature": 0.1, "do_sample": True}),
        ({}, {"min_new_tokens": 30, "forced_eos_token_id": 7, "num_beams": 3}),
        ({}, {"suppress_tokens": list(range(600, 606)), "no_repeat_ngram_size": 1}),
        ({"use_cache": False, "pad_token_id": 5}, {"max_length": 3, "stop_strings": ["o"]}),
    ],
)
def test_answers_end_whatever_the_settings_of_the_base(
    name: str, config: dict[str, Any], generation: dict[str, Any], tmp_path: Path
) -> None:
    model, tokenizer, _ = trained(name)
    path = save_base(model, tokenizer, tmp_path / "base", config, generation)
    loaded = load(path, CPU)
    form = prompt_form(loaded.tokenizer, chosen_prompt(tokenizer))
    own = loaded.model.generation_config
    calls: list[int] = []

    def count() -> bool:
        calls.append(1)
        return False

    assert generate(loaded.model, form, ROWS[:1], 40, count) == ["ok"]
    assert len(calls) <= 3  # the answer, and the token that ends it
    assert generate(loaded.model, form, ROWS, 40) == ANSWERS
    assert loaded.model.generation_config is own


@pytest.mark.parametrize("name", FORMS)
def test_an_adapted_model_ends_its_answers_as_well(name: str, tmp_path: Path) -> None:
    model, tokenizer, _ = trained(name)
    path = save_base(model, tokenizer, tmp_path / "base", {}, {"eos_token_id": 5})
    loaded = load(path, CPU)
    adapted = lora.attach(loaded.model, LoraSpec(r=2), seed=0)
    form = prompt_form(loaded.tokenizer, chosen_prompt(tokenizer))
    assert generate(adapted, form, ROWS, 40) == ANSWERS
    sampled = generate(adapted, form, ROWS, 40, sampling=Sampling(0, temperature=0.01))
    assert sampled == ANSWERS
    assert loaded.model.generation_config.eos_token_id == 5


def test_an_answer_may_repeat_its_prompt_and_still_end() -> None:
    tokenizer = chat_tokenizer(FORMS["smollm2"])
    prompt = chosen_prompt(tokenizer)
    row = Instruction("Say this again and again.", "", "Say this again and again.")
    model = trained_model(tokenizer, prompt, [row])
    assert generate(model, prompt_form(tokenizer, prompt), [row], 60) == [row.output]


def test_an_answer_does_not_go_round_in_a_loop() -> None:
    tokenizer = chat_tokenizer(FORMS["gpt2"])
    row = Instruction("Go on.", "", "and so on, " * 10)
    model = trained_model(tokenizer, None, [row])
    [answer] = generate(model, prompt_form(tokenizer, None), [row], 60)
    ids = tokenizer(answer).input_ids
    counts = Counter(tuple(ids[i : i + 4]) for i in range(len(ids) - 3))
    assert answer.startswith("and so on, and so on,")
    assert max(counts.values()) == 2


FAMILY_ENDS = {
    "llama": ["<|eot_id|>"],
    "qwen2": ["<|im_end|>"],
    "qwen3": ["<|im_end|>"],
    "mistral": ["</s>"],
    "gemma2": ["<end_of_turn>", "<eos>"],
    "gemma3": ["<end_of_turn>", "<eos>"],
    "phi3": ["<|end|>", "<|endoftext|>"],
    "smollm2": ["<|im_end|>"],
    "gpt2": ["<|endoftext|>"],
    "gpt_neox": ["<|endoftext|>"],
}


@pytest.mark.parametrize("name", families.FORMS)
def test_each_family_answers_several_rows_at_once_as_it_answers_each(name: str) -> None:
    tokenizer = families.family_tokenizer(name)
    form = prompt_form(tokenizer, chosen_prompt(tokenizer))
    assert tokenizer.convert_ids_to_tokens(list(form.end_ids)) == FAMILY_ENDS[name]
    model = families.family_model(name, tokenizer)
    together = generate(model, form, ROWS, 8)
    assert together == [generate(model, form, [row], 8)[0] for row in ROWS]
    control = control_strings(tokenizer)
    assert not [each for each in control for answer in together if each in answer]
