"""Tests of batches that go through the model in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedModel

from common.protocol.tasks import DpoSettings, LocalTraining, LoraSpec
from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.models.lora import AdaptedModel, attach
from learning.objectives import classification, dpo
from learning.objectives.registry import Objective, make_objective
from learning.training.accumulation import BatchGradient, GradientAccumulator
from learning.training.loop import StepReport, train
from learning.training.memory import MemorySettings
from tests.support.tiny_encoder import encoder_config, encoder_tokenizer
from tests.support.tiny_model import tiny_model, tiny_tokenizer

LABELS = ("bad", "good")
OBJECTIVES = ("sft", "dpo", "dpo with sft", "ipo", "classification")
LORA = LoraSpec(r=4, alpha=8, dropout=0.0)


def rated_texts() -> Sequence[Any]:
    rows = [LabelledText("a good film " * (i + 1), LABELS[i % 2]) for i in range(7)]
    texts = make_objective("classification", None, LABELS).encode(encoder_tokenizer(), rows, 32)
    return classification.with_logit_adjustment(texts.examples, 2, 1.0)


def instructions() -> Sequence[Any]:
    rows = [Instruction(f"Say {i}.", "", "yes " * (3 * i + 1)) for i in range(7)]
    return make_objective("sft").encode(tiny_tokenizer(), rows, 256).examples


def pairs() -> Sequence[Any]:
    rows = [PreferencePair(f"Say {i}.", "yes " * (3 * i + 1), "no " * 4) for i in range(7)]
    encoded = make_objective("dpo").encode(tiny_tokenizer(), rows, 256).examples
    return dpo.with_reference(encoded, [(-20.0 - i, -15.0) for i in range(7)])


def case(name: str) -> tuple[Objective, Sequence[Any]]:
    """Return an objective and seven examples of different lengths."""
    match name:
        case "sft":
            return make_objective("sft"), instructions()
        case "classification":
            return make_objective("classification", None, LABELS, smoothing=0.1), rated_texts()
        case "ipo":
            return make_objective("dpo", DpoSettings(loss="ipo")), pairs()
        case "dpo with sft":
            return make_objective("dpo", DpoSettings(sft_weight=0.5)), pairs()
        case _:
            return make_objective("dpo"), pairs()


def adapted(name: str) -> AdaptedModel:
    """Return a model whose adapter is not zero."""
    model: PreTrainedModel = tiny_model()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "classification":
            config = encoder_config(layers=2)
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
            model = BertForSequenceClassification(config)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # parts draw other numbers than the whole
        found = attach(model, LORA, 0).eval()
        for parameter in found.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
    return found


def gradient(name: str, memory: MemorySettings) -> tuple[BatchGradient, list[torch.Tensor]]:
    model = adapted(name)
    objective, examples = case(name)
    weights = [p for p in model.parameters() if p.requires_grad]
    accumulator = GradientAccumulator(model, objective, weights, memory, autocast=False)
    found = accumulator.compute(examples)
    return found, [w.grad for w in weights if w.grad is not None]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("micro_batch", [1, 3, 100])
def test_the_parts_of_a_batch_add_up_to_the_loss_and_gradient_of_the_whole(
    name: str, micro_batch: int
) -> None:
    whole, expected = gradient(name, MemorySettings())
    parts, found = gradient(name, MemorySettings(micro_batch=micro_batch))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert replace(parts, loss=whole.loss) == whole
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert sum(float(each.abs().sum()) for each in found) > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_task_reports_the_same_losses_and_counts_however_its_batches_are_split(name: str) -> None:
    objective, examples = case(name)
    training = LocalTraining(batch_size=4, lr=1e-3, max_length=256, steps=4)

    def run(memory: MemorySettings) -> tuple[list[StepReport], tuple[int, int, int]]:
        reports: list[StepReport] = []
        result = train(
            adapted(name),
            objective,
            examples,
            training,
            lambda report: reports.append(report) is None,
            memory=memory,
        )
        return reports, (result.steps, result.samples, result.tokens)

    whole, split = run(MemorySettings()), run(MemorySettings(micro_batch=1))
    assert whole[1] == split[1]
    for one, other in zip(whole[0], split[0], strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert one.tokens == other.tokens


def test_what_depends_on_the_whole_batch_is_prepared_before_it_is_split() -> None:
    objective, examples = case("sft")
    seen: list[tuple[int, int]] = []

    def prepare(model: torch.nn.Module, batch: Sequence[Any], size: int) -> Sequence[Any]:
        seen.append((len(batch), size))
        return batch[:4]

    model = adapted("sft")
    weights = [p for p in model.parameters() if p.requires_grad]
    prepared = replace(objective, prepare_batch=prepare)
    accumulator = GradientAccumulator(
        model, prepared, weights, MemorySettings(micro_batch=3), autocast=False
    )
    assert accumulator.compute(examples).size == 4
    assert seen == [(7, 3)]
