import math
from pathlib import Path

import pytest
import torch

from common.errors import DataError
from learning.data.row_types import Instruction, LabelledText
from learning.evaluation.generation import generate
from learning.evaluation.inference import class_scores, evaluate, row_nats, unigram_entropy
from learning.models.objective_model import load_for_objective
from learning.objectives.classification import ClassEncoder, predict
from learning.objectives.sft import sft_loss
from learning.objectives.tokens import IGNORED, TokenisedExample
from learning.prompts.form import prompt_form
from learning.training.batches import collate
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer

ROWS = [
    TokenisedExample((1, 2, 3), (IGNORED, 2, 3), 4),
    TokenisedExample((1, 2, 4, 5, 6), (IGNORED, IGNORED, 4, 5, 6), 6),
]


class Uniform(torch.nn.Module):
    """A model for which each of eight tokens is equally likely."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(8))

    def get_output_embeddings(self) -> None:
        """Return None: there is no output layer to hook."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> "Uniform":
        self.logits = self.weight.expand(*input_ids.shape, 8)
        return self


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary() -> None:
    found = evaluate(Uniform(), ROWS).values
    assert found["nats_per_token"] == pytest.approx(math.log(8))
    assert found["perplexity"] == pytest.approx(8)
    assert (found["tokens"], found["bytes"]) == (5, 10)
    assert found["bits_per_byte"] == pytest.approx(5 * 3 / 10)  # 3 bits a token


def test_the_loss_of_a_batch_is_the_mean_over_its_response_tokens() -> None:
    loss, metrics = sft_loss(Uniform(), collate(ROWS))
    assert loss.item() == pytest.approx(math.log(8))
    assert metrics["nats"] == pytest.approx(5 * math.log(8))


def test_batching_and_padding_do_not_change_the_metrics() -> None:
    model = tiny_model()
    alone = [evaluate(model, [row]).values for row in ROWS]
    nats = sum(each["nats_per_token"] * each["tokens"] for each in alone)
    assert evaluate(model, ROWS).values["nats_per_token"] == pytest.approx(nats / 5, rel=1e-5)


def test_the_loss_agrees_with_the_models_own() -> None:
    model = tiny_model()
    batch = collate(ROWS)
    theirs = model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert float(sft_loss(model, batch)[0]) == pytest.approx(float(theirs), rel=1e-5)


def test_rows_are_scored_in_their_order_whatever_their_length() -> None:
    model = tiny_model()
    rows = [ROWS[1], ROWS[0], ROWS[1]]
    alone = [evaluate(model, [row]).values for row in rows]
    expected = [each["nats_per_token"] * each["tokens"] for each in alone]
    assert row_nats(model, rows) == pytest.approx(expected, rel=1e-5)
    assert row_nats(model, []) == []


def test_class_scores_are_in_the_order_of_the_texts_and_average_to_the_loss(tmp_path: Path) -> None:
    path = saved(encoder(), tmp_path / "encoder")
    loaded = load_for_objective("classification", path, ("bad", "good"), torch.device("cpu"))
    texts = ["a very very bright film", "dull", "a plot"]
    rows = [
        LabelledText(text, label) for text, label in zip(texts, ("good", "bad", "bad"), strict=True)
    ]
    examples = ClassEncoder(("bad", "good")).encode(loaded.tokenizer, rows, 16).examples
    scores = class_scores(loaded.model, examples)
    for example, (nats, predicted) in zip(examples, scores, strict=True):
        alone = predict(loaded.model, [example])
        assert nats == pytest.approx(alone.loss, rel=1e-4)
        assert (predicted,) == alone.predicted
    whole = predict(loaded.model, examples)
    assert sum(nats for nats, _ in scores) / 3 == pytest.approx(whole.loss, rel=1e-4)


def test_evaluation_restores_the_mode() -> None:
    model = tiny_model().train()
    evaluate(model, ROWS)
    assert model.training


def test_evaluating_without_examples_is_a_data_error() -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(tiny_model(), [])


def test_unigram_entropy_counts_only_learned_tokens() -> None:
    # Responses 2 3 4 2: p = (1/2, 1/4, 1/4), so 1.5 bits.
    rows = [
        TokenisedExample((9, 2, 3), (IGNORED, 2, 3), 2),
        TokenisedExample((9, 4, 2), (IGNORED, 4, 2), 2),
    ]
    assert unigram_entropy(rows) == pytest.approx(1.5 * math.log(2))


def test_generation_is_greedy_repeatable_and_bounded() -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model()
    form = prompt_form(tokenizer, None)
    tasks = (("Add.", "1, 2"), ("Sing.", ""), ("word " * 400, ""))
    asked = [Instruction(*task, "") for task in tasks]
    first = generate(model, form, asked, 5)
    assert first == generate(model, form, asked, 5)
    assert first == [generate(model, form, [one], 5)[0] for one in asked]
    assert generate(model, form, asked[:1], 1000), "no more than the model has positions"
    assert len(first) == 3 and any(first)
    stops = iter([False, False, True])  # a fourth call would raise
    [short] = generate(model, form, asked[:1], 50, lambda: next(stops))
    assert generate(model, form, asked[:1], 3) == [short]
