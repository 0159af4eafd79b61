"""Figures of several clients, pooled, are those of one evaluation of all their rows together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedModel

from common.evaluation.federated import FederatedEvaluation
from common.evaluation.sums import EvaluationSums, check_sums, metric_values
from common.protocol.fields import RowKind
from common.protocol.tasks import DpoSettings, KtoSettings
from learning.data.row_types import LabelledText, Row
from learning.evaluation.row_scores import RowScorer, make_scorer, score_in_parts
from learning.synthetic.instructions import make_instructions
from learning.synthetic.preferences import make_preferences, make_ratings
from tests.support.tiny_encoder import WORDS, encoder_config, encoder_tokenizer
from tests.support.tiny_model import tiny_model, tiny_tokenizer

LABELS = ("good", "bad", "dull")
IPO = DpoSettings(beta=0.3, loss="ipo")
CASES: Sequence[tuple[RowKind, DpoSettings | KtoSettings | None]] = (
    ("sft", None),
    ("va", DpoSettings(beta=0.3, label_smoothing=0.1)),
    ("va", IPO),
    ("kto", KtoSettings(beta=0.3, good_weight=2.0)),
    ("cls", None),
)


def rows_of(kind: RowKind) -> list[Row]:
    match kind:
        case "sft":
            return list(make_instructions(0, 23))
        case "va":
            return list(make_preferences(0, 23))
        case "kto":
            return list(make_ratings(0, 23))
        case "cls":
            words = [WORDS[i % len(WORDS)] for i in range(60)]
            return [
                LabelledText(" ".join(words[i : i + 1 + i % 7]), LABELS[i % 3]) for i in range(23)
            ]


def models(kind: RowKind) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Return a model and its reference."""
    if kind != "cls":
        return tiny_model(), tiny_model(seed=1)
    config = encoder_config()
    config.num_labels = len(LABELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
        for weight in model.parameters():
            weight.data += 0.1 * torch.randn(weight.shape)
    return model, model


def evaluate(
    scorer: RowScorer, examples: Sequence[Any], both: tuple[PreTrainedModel, PreTrainedModel]
) -> EvaluationSums:
    """Return the sums over examples, as a client computes them."""
    scores, reference = (score_in_parts(scorer, model, examples) for model in both)
    return scorer.sums(examples, scores, reference)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_pooled_figures_equal_those_of_one_evaluation_of_all_rows(
    kind: RowKind, settings: DpoSettings | KtoSettings | None
) -> None:
    scorer = make_scorer(kind, settings, LABELS if kind == "cls" else ())
    tokenizer = encoder_tokenizer() if kind == "cls" else tiny_tokenizer()
    examples = scorer.objective.encode(tokenizer, rows_of(kind), 256).examples
    assert len(examples) > 12
    both = models(kind)
    parts = {"a": examples[:3], "b": examples[3:4], "c": examples[4:]}
    sums = {name: evaluate(scorer, own, both) for name, own in parts.items()}
    pooled = dict(FederatedEvaluation(1, 0, kind, sums).values())
    whole = dict(metric_values(kind, evaluate(scorer, examples, both)))
    if kind == "kto":  # the loss depends on z₀, of which each client has its own
        del pooled["loss"], whole["loss"]
    assert pooled == pytest.approx(whole, rel=1e-6, abs=1e-6)
    assert pooled
    classes = len(LABELS) if kind == "cls" else 0
    for own in sums.values():
        assert check_sums(kind, own, max_length=256, classes=classes) == ""


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_the_loss_is_that_of_the_objective(
    kind: RowKind, settings: DpoSettings | KtoSettings | None
) -> None:
    scorer = make_scorer(kind, settings, LABELS if kind == "cls" else ())
    tokenizer = encoder_tokenizer() if kind == "cls" else tiny_tokenizer()
    examples = scorer.objective.encode(tokenizer, rows_of(kind), 256).examples
    model, reference = models(kind)
    sums = evaluate(scorer, examples, (model, reference))
    if kind in ("va", "kto"):
        scores = score_in_parts(scorer, reference, examples)
        examples = [
            scorer.objective.with_reference(example, nats)
            for example, nats in zip(examples, scores, strict=True)
        ]
    measured = scorer.objective.measure(model, examples)
    assert sums.loss / (sums.tokens or sums.rows) == pytest.approx(measured.loss, rel=1e-5)
