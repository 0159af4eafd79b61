"""Tests of batches that go through the model in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from common.errors import ModelError
from common.protocol.tasks import DpoSettings, LocalTraining, LoraSpec
from common.protocol.tensors import Tensors
from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.models.lora import AdaptedModel, attach, read_adapter
from learning.objectives import classification, dpo
from learning.objectives.registry import Objective, make_objective
from learning.objectives.tokens import make_example
from learning.training.accumulation import BatchGradient, GradientAccumulator
from learning.training.batches import TokenBatch, collate, computed_batches
from learning.training.loop import StepReport, train
from learning.training.memory import AUTOMATIC, MemorySettings, after_crashes
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
    return tuple(map(dpo.with_reference, encoded, [(-20.0 - i, -15.0) for i in range(7)]))


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


# Memory that does not suffice


@dataclass
class SmallMemory:
    """Objective for whose loss memory suffices only up to a number of examples at once."""

    inner: Objective
    limit: int
    error: Exception = field(default_factory=lambda: torch.OutOfMemoryError("CUDA out of memory"))
    sizes: list[int] = field(default_factory=list)
    needs_checkpointing: bool = False

    def loss(self, model: Any, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        self.sizes.append(batch.size)
        value, figures = self.inner.loss(model, batch)
        if batch.size > self.limit or (self.needs_checkpointing and _keeps_activations(model)):
            raise self.error
        return value, figures  # type: ignore[no-any-return]

    @property
    def objective(self) -> Objective:
        return replace(self.inner, loss=self.loss)


def _keeps_activations(model: torch.nn.Module) -> bool:
    blocks = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    return not all("forward" in vars(block) for block in blocks)


ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[-20:])
def test_a_batch_that_does_not_fit_is_repeated_in_halves(error: Exception) -> None:
    objective, examples = case("sft")
    small = SmallMemory(objective, limit=2, error=error)
    training = LocalTraining(batch_size=7, lr=1e-3, max_length=256, steps=2)
    model = adapted("sft")
    found = train(model, small.objective, examples, training)
    assert small.sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1] + [1] * 7
    assert found.memory == MemorySettings(micro_batch=1)
    small.sizes.clear()
    train(model, small.objective, examples, training, memory=found.memory)
    assert small.sizes == [1] * 14


def test_a_repeated_batch_draws_the_same_dropout_as_if_it_had_begun_in_halves() -> None:
    def weights(limit: int, memory: MemorySettings) -> Tensors:
        objective, examples = case("sft")
        model = adapted("sft")
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.3
        training = LocalTraining(batch_size=4, lr=1e-2, max_length=256, steps=3)
        small = SmallMemory(objective, limit)
        train(model, small.objective, examples[:4], training, memory=memory)
        return read_adapter(model)

    repeated = weights(2, MemorySettings())
    begun = weights(2, MemorySettings(micro_batch=2))
    assert all(np.array_equal(repeated[name], begun[name]) for name in begun)


def test_checkpointing_comes_when_one_example_does_not_fit() -> None:
    objective, examples = case("dpo")
    small = SmallMemory(objective, limit=1, needs_checkpointing=True)
    training = LocalTraining(batch_size=4, lr=1e-3, max_length=256, steps=1)
    found = train(adapted("dpo"), small.objective, examples[:4], training)
    assert small.sizes == [4, 2, 1, 1, 1, 1, 1]
    assert found.memory == MemorySettings(micro_batch=1, checkpointing=True)


@pytest.mark.parametrize(("checkpointing", "tries"), [(None, 3), (False, 2)])
def test_a_task_of_which_no_example_fits_is_refused_with_its_length(
    checkpointing: bool | None, tries: int
) -> None:
    objective, examples = case("sft")
    small = SmallMemory(objective, limit=0)
    training = LocalTraining(batch_size=2, lr=1e-3, max_length=256, steps=1)
    model, memory = adapted("sft"), MemorySettings(checkpointing=checkpointing)
    before = read_adapter(model)
    with pytest.raises(ModelError, match=r"out of memory at one example of \d+ tokens") as error:
        train(model, small.objective, examples, training, memory=memory)
    assert "model.max_length" in error.value.remedy
    assert len(small.sizes) == tries
    assert all(np.array_equal(before[name], tensor) for name, tensor in read_adapter(model).items())


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    objective, examples = case("sft")
    small = SmallMemory(objective, limit=0, error=RuntimeError("device-side assert triggered"))
    training = LocalTraining(batch_size=2, lr=1e-3, max_length=256, steps=1)
    with pytest.raises(RuntimeError, match="assert"):
        train(adapted("sft"), small.objective, examples, training)
    assert len(small.sizes) == 1


def test_a_task_that_killed_the_worker_begins_with_less_memory() -> None:
    def after(crashes: int, settings: MemorySettings = AUTOMATIC) -> MemorySettings:
        return after_crashes(settings, crashes, 16, can_checkpoint=True)

    assert after(0) == AUTOMATIC
    assert after(1) == MemorySettings(micro_batch=4)
    assert after(2) == MemorySettings(micro_batch=1, checkpointing=True)
    assert after(2, MemorySettings(checkpointing=False)) == MemorySettings(1, False)


def test_measuring_halves_its_batches_too() -> None:
    sizes: list[int] = []

    def compute(batch: TokenBatch) -> int:
        sizes.append(batch.size)
        if batch.size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch.tokens

    examples = [make_example([1], [2] * (10 - i), 1) for i in range(7)]  # padded to 16
    found = list(computed_batches(examples, collate, compute, 6 * 16))
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    assert sum(tokens for _, tokens in found) == sum(each.length for each in examples)


def test_measuring_is_refused_where_one_example_does_not_fit() -> None:
    def fail(_: TokenBatch) -> None:
        raise MemoryError

    with pytest.raises(ModelError, match="out of memory at one example of 2 tokens"):
        list(computed_batches([make_example([1], [2], 1)] * 3, collate, fail))
