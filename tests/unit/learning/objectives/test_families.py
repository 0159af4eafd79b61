"""What holds for every family of models: DPO begins at ln 2, and ends of answers are learned."""

from __future__ import annotations

import math
from datetime import date

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from common.protocol.tasks import DpoSettings, LocalTraining, LoraSpec, PromptSpec
from learning.data.row_types import Instruction, PreferencePair
from learning.models.lora import AdaptedModel, attach
from learning.objectives import dpo
from learning.objectives.registry import Objective, make_objective
from learning.prompts.choice import choose_prompt
from learning.prompts.form import prompt_form
from learning.training.loop import StepReport, train
from tests.support.families import FORMS, family_model, family_tokenizer

PAIRS = [
    PreferencePair(f"Which is larger, {i} or {i + 1}?", f"{i + 1} is larger.", f"It is {i}.")
    for i in range(6)
]
ROWS = [Instruction("Say yes.", "", "Yes."), Instruction("Name it.", "a red kite", "A kite.")]


def adapted(name: str, tokenizer: PreTrainedTokenizerFast) -> AdaptedModel:
    return attach(family_model(name, tokenizer), LoraSpec(r=8, alpha=16, dropout=0.1), 0)


def first_losses(
    model: AdaptedModel, objective: Objective, examples: object, steps: int, lr: float = 1e-2
) -> list[float]:
    losses: list[float] = []

    def note(report: StepReport) -> bool:
        losses.append(report.loss)
        return True

    local = LocalTraining(batch_size=len(PAIRS), lr=lr, max_length=256, steps=steps)
    train(model, objective, examples, local, note)  # type: ignore[arg-type]
    return losses


@pytest.mark.parametrize("name", FORMS)
def test_the_first_batch_of_dpo_has_a_loss_of_ln_2(name: str) -> None:
    tokenizer = family_tokenizer(name)
    prompt = _prompt(tokenizer)
    objective = make_objective("dpo", DpoSettings(), prompt=prompt)
    examples = objective.encode(tokenizer, PAIRS, 256).examples
    assert len(examples) == len(PAIRS)
    model = adapted(name, tokenizer)
    pairs = tuple(map(dpo.with_reference, examples, dpo.log_probabilities(model, examples)))
    losses = first_losses(model, objective, pairs, 2)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ["smollm2", "gpt2", "mistral"])
def test_the_end_of_an_answer_is_learned_where_padding_is_the_end_token(name: str) -> None:
    tokenizer = family_tokenizer(name)
    tokenizer.pad_token = tokenizer.eos_token
    prompt = _prompt(tokenizer)
    objective = make_objective("sft", prompt=prompt)
    examples = objective.encode(tokenizer, ROWS, 256).examples
    model = attach(family_model(name, tokenizer), None, 0)  # small weights: all have to move
    losses = first_losses(model, objective, examples, 60)
    assert losses[-1] < 0.1
    form = prompt_form(tokenizer, prompt)
    model.eval()
    for example in examples:
        at = max(i for i, label in enumerate(example.labels) if label in form.end_ids)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([example.input_ids[:at]])).logits[0, -1]
        assert logits.softmax(-1)[example.labels[at]] > 0.99


def _prompt(tokenizer: PreTrainedTokenizerFast) -> PromptSpec:
    return choose_prompt("auto", tokenizer, ("all",), date(2026, 1, 1))
