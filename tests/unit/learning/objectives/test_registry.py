"""Tests of the common behaviour of all objectives, and of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from common.protocol.tasks import DpoSettings
from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.objectives import registry
from learning.objectives.registry import Objective
from learning.objectives.tokens import IGNORED
from tests.support.tiny_encoder import encoder_config, encoder_tokenizer
from tests.support.tiny_model import tiny_model, tiny_tokenizer

LABELS = ("bad", "good")


@dataclass(frozen=True)
class Case:
    objective: Objective
    model: Any
    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[Any]
    accuracy: float | None
    """Accuracy of an untrained model; None where nothing is right or wrong."""


def classifier() -> BertForSequenceClassification:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = encoder_config(layers=1)
        config.num_labels = 2
        model = BertForSequenceClassification(config).eval()
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([1.0, 0.0])  # everything is bad
    return model


def case(name: str) -> Case:
    if name == "classification":
        rows = [LabelledText("a good film", "good"), *[LabelledText("a dull plot", "bad")] * 3]
        objective = registry.make_objective(name, None, LABELS)
        return Case(objective, classifier(), encoder_tokenizer(), rows, 0.75)
    tokenizer, model = tiny_tokenizer(), tiny_model()
    if name == "sft":
        made = [Instruction(f"Say {i}.", "", f"It is {i}.") for i in range(4)]
        return Case(registry.make_objective("sft"), model, tokenizer, made, None)
    pairs = [PreferencePair(f"Say {i}.", f"It is {i}.", "No.") for i in range(4)]
    return Case(registry.make_objective("dpo"), model, tokenizer, pairs, 0.0)


NAMES = ("sft", "dpo", "classification")


@pytest.mark.parametrize("name", NAMES)
def test_rows_become_examples_a_batch_a_loss_and_a_measurement(name: str) -> None:
    of = case(name)
    encoded = of.objective.encode(of.tokenizer, of.rows, 32 if name == "classification" else 256)
    assert len(encoded.examples) == 4 and encoded.kept == (0, 1, 2, 3) and not encoded.skipped
    batch = of.objective.collate(encoded.examples, torch.device("cpu"))
    assert batch.size == 4
    assert batch.tokens > 0 and batch.target_count > 0
    loss, figures = of.objective.loss(of.model, batch)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in of.model.parameters())
    assert all(math.isfinite(value) for value in figures.values())
    measured = of.objective.measure(of.model, encoded.examples)
    assert measured.loss == pytest.approx(loss.item(), rel=1e-4)
    assert measured.accuracy == of.accuracy


@pytest.mark.parametrize("name", NAMES)
def test_measuring_neither_trains_nor_leaves_the_model_in_another_mode(name: str) -> None:
    of = case(name)
    examples = of.objective.encode(of.tokenizer, of.rows, 32 if name == "classification" else 256)
    of.model.train()
    first = of.objective.measure(of.model, examples.examples)
    assert of.model.training
    assert all(p.grad is None for p in of.model.parameters())
    assert of.objective.measure(of.model, examples.examples) == first  # without dropout


def test_only_dpo_trains_without_dropout() -> None:
    assert [case(name).objective.dropout for name in NAMES] == [True, False, True]


def test_the_settings_of_a_preference_task_decide_its_loss() -> None:
    # Without a reference the score is the log-probability itself, so the losses must differ.
    of = case("dpo")
    examples = of.objective.encode(of.tokenizer, of.rows, 256).examples
    batch = of.objective.collate(examples)
    settings = (
        None, DpoSettings(), DpoSettings(beta=0.5), DpoSettings(loss="ipo"),
        DpoSettings(label_smoothing=0.2), DpoSettings(sft_weight=1.0),
    )  # fmt: skip
    losses = [
        registry.make_objective("dpo", each).loss(of.model, batch)[0].item() for each in settings
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 5


def test_the_labels_of_a_task_are_the_outputs_of_the_head_in_their_order() -> None:
    rows = [LabelledText("a good film", "good")]
    for labels, place in ((LABELS, 1), (LABELS[::-1], 0)):
        objective = registry.make_objective("classification", None, labels)
        [text] = objective.encode(encoder_tokenizer(), rows, 16).examples
        assert text.label == place


def test_an_instruction_is_learned_from_its_answer_only() -> None:
    of = case("sft")
    [example] = of.objective.encode(of.tokenizer, of.rows[:1], 256).examples
    learned = [label for label in example.labels if label != IGNORED]
    assert of.tokenizer.decode(learned, skip_special_tokens=True).strip() == "It is 0."
