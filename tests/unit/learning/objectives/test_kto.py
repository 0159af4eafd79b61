import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from common.protocol.tasks import KtoSettings, LocalTraining, LoraSpec
from learning.data.row_types import RatedAnswer
from learning.models.lora import AdaptedModel, attach, read_adapter
from learning.objectives import kto
from learning.objectives.kto import TokenisedRating, rating_loss, set_losses
from learning.objectives.registry import make_objective
from learning.objectives.tokens import IGNORED, NO_ROOM, TokenisedExample, make_example
from learning.prompts.form import prompt_form
from learning.training.loop import train
from learning.training.memory import MemorySettings
from tests.support.tiny_model import tiny_model, tiny_tokenizer

ROW = RatedAnswer("Which is larger, 2 or 3?", "3 is larger.", True)
OTHER = RatedAnswer("Name a colour.", "Green.", False)


def rating(prompt: list[int], answer: list[int], other: list[int], good: bool) -> TokenisedRating:
    return TokenisedRating(make_example(prompt, answer, 1), make_example(prompt, other, 1), good)


RATINGS = (
    rating([5, 6], [7, 8, 9], [12, 13], True),
    rating([11], [12, 13], [4], False),
    rating([3] * 20, [4], [10, 20, 30], True),
    rating([8, 9], [10, 20, 30], [7, 8, 9], False),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def text_of(example: TokenisedExample, tokenizer: PreTrainedTokenizerFast) -> str:
    return str(tokenizer.decode([each for each in example.labels if each != IGNORED][:-1]))


def test_an_answer_is_learned_with_its_end_and_paired_with_that_of_the_next_row(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    first, second = kto.encode(tokenizer, [ROW, OTHER], 200).examples
    asked = prompt_form(tokenizer, None).prompt_ids(ROW)
    assert (first.good, second.good) == (True, False)
    for example, text in ((first.answer, ROW.completion), (first.mismatched, OTHER.completion)):
        assert list(example.input_ids[: len(asked)]) == asked
        assert example.labels == (IGNORED,) * len(asked) + example.input_ids[len(asked) :]
        assert text_of(example, tokenizer) == text
        assert example.input_ids[-1] == tokenizer.eos_token_id
    assert text_of(second.mismatched, tokenizer) == ROW.completion


def test_a_mismatched_answer_belongs_to_another_prompt_where_there_is_one(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    same = [ROW, replace(ROW, completion="2.", good=False), OTHER]
    others = [
        text_of(each.mismatched, tokenizer) for each in kto.encode(tokenizer, same, 200).examples
    ]
    assert others == ["Green.", "Green.", "3 is larger."]
    alike = kto.encode(tokenizer, same[:2], 200).examples
    assert [text_of(each.mismatched, tokenizer) for each in alike] == ["2.", "3 is larger."]


def test_answers_that_do_not_fit_are_left_out_and_mismatched_ones_are_cut(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    length = kto.encode(tokenizer, [ROW], 200).examples[0].length + 2
    rows = [
        RatedAnswer("Say it. " * 40, "Yes.", True),
        replace(ROW, completion="3, I think. " * 40),
        ROW,
        RatedAnswer("Go.", "3 is larger. 3 is larger.", False),
    ]
    found = kto.encode(tokenizer, rows, length)
    assert found.kept == (2, 3)
    assert found.skipped == {NO_ROOM: 1, kto.TOO_LONG: 1}
    assert found.examples[0].mismatched.length == length


def test_losses_match_the_formula() -> None:
    # β·(r − z₀) = 0.5·(3 − 1) = 1 and 0.5·(−1 − 1) = −1; σ(1) = 0.731059.
    scores, good = torch.tensor([3.0, -1.0, 3.0, -1.0]), torch.tensor([True, True, False, False])
    settings = KtoSettings(beta=0.5, good_weight=2.0)
    found = rating_loss(scores, good, torch.tensor(1.0), settings).tolist()
    assert found == pytest.approx([2 * 0.268941, 2 * 0.731059, 0.731059, 0.268941], abs=1e-5)


def test_the_divergence_is_the_mean_of_mismatched_answers_and_never_negative() -> None:
    settings = KtoSettings(beta=1.0)
    good, bad = RATINGS[0], replace(RATINGS[0], good=False)
    # z₀ = (3 − 1)/2 = 1: 1 − σ(2 − 1) and 1 − σ(1 − 1).
    found = set_losses([2.0, 1.0], [3.0, -1.0], [good, bad], settings)
    assert found == pytest.approx([0.268941, 0.5], abs=1e-5)
    assert set_losses([2.0], [-3.0], [good], settings) == pytest.approx([0.119203], abs=1e-5)
    alone = replace(good, mismatched=good.answer)  # no other row has lent its answer
    assert set_losses([2.0], [3.0], [alone], settings) == pytest.approx([0.119203], abs=1e-5)
    assert set_losses([], [], [], settings) == []


def test_a_model_that_is_its_own_reference_is_undecided() -> None:
    model = tiny_model()
    objective = make_objective("kto", KtoSettings(good_weight=3.0))
    ratings = tuple(map(kto.with_reference, RATINGS, kto.log_probabilities(model, RATINGS)))
    found = objective.measure(model, ratings)
    assert (found.loss, found.accuracy) == (pytest.approx(1.0, abs=1e-4), 0.5)
    prepared = objective.prepare_batch(model, ratings, 2)
    assert prepared[0].divergence == pytest.approx(0, abs=1e-4)
    assert objective.loss(model, objective.collate(prepared))[0].item() == pytest.approx(
        1, abs=1e-4
    )


def test_log_probabilities_of_a_batch_equal_those_of_single_answers() -> None:
    model = tiny_model()
    at_once = kto.log_probabilities(model, RATINGS)
    for each, known in zip(RATINGS, at_once, strict=True):
        assert kto.log_probabilities(model, [each])[0] == pytest.approx(known, abs=1e-4)
    # A random model predicts almost uniformly: −ln 600 nats per token.
    assert at_once[0] == pytest.approx((-3 * math.log(600), -2 * math.log(600)), rel=0.1)


def test_training_learns_the_ratings_and_uses_no_dropout_nor_depends_on_micro_batches() -> None:
    objective = make_objective("kto", KtoSettings(beta=0.5))
    ratings = tuple(map(kto.with_reference, RATINGS, kto.log_probabilities(tiny_model(), RATINGS)))

    def trained(dropout: float, micro_batch: int | None = None) -> AdaptedModel:
        model = attach(tiny_model(), LoraSpec(r=4, alpha=8, dropout=dropout), 0)
        training = LocalTraining(batch_size=4, lr=2e-2, steps=20, max_length=256)
        memory = MemorySettings(micro_batch=micro_batch)
        train(model, objective, ratings, training, memory=memory)
        return model

    model = trained(0.5)
    after = objective.measure(model, ratings)
    assert after.accuracy == 1.0
    assert after.loss < 0.4
    one, other, parts = map(read_adapter, (model, trained(0.0), trained(0.0, 3)))
    assert all(np.array_equal(one[n], other[n]) for n in one)
    assert max(float(np.abs(one[n] - parts[n]).max()) for n in one) < 1e-2
