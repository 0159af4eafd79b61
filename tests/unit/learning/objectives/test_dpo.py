import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from common.protocol.tasks import DpoSettings, LocalTraining, LoraSpec
from learning.data.row_types import PreferencePair
from learning.models.lora import AdaptedModel, attach, read_adapter
from learning.objectives import dpo
from learning.objectives.dpo import (
    SAME_TOKENS,
    TOO_LONG,
    TokenisedPair,
    collate,
    preference_loss,
    with_reference,
)
from learning.objectives.registry import make_objective
from learning.objectives.tokens import IGNORED, NO_ROOM, make_example
from learning.prompts.form import prompt_form
from learning.training.loop import train
from tests.support.tiny_model import tiny_model, tiny_tokenizer

ROW = PreferencePair("Which is larger, 2 or 3?", "3 is larger.", "2.")
PAIRS = (
    TokenisedPair(make_example([5, 6], [7, 8, 9], 3), make_example([5, 6], [10], 1)),
    TokenisedPair(make_example([11], [12, 13], 2), make_example([11], [14, 15, 16, 17], 4)),
    TokenisedPair(make_example([3] * 20, [4], 1), make_example([3] * 20, [5, 6], 2)),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def test_a_pair_shares_its_prompt_and_learns_both_answers_with_their_ends(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    (pair,) = dpo.encode(tokenizer, [ROW], 200).examples
    asked = prompt_form(tokenizer, None).prompt_ids(ROW)
    for answer, text in ((pair.chosen, ROW.chosen), (pair.rejected, ROW.rejected)):
        assert list(answer.input_ids[: len(asked)]) == asked
        assert answer.labels[: len(asked)] == (IGNORED,) * len(asked)
        learned = answer.labels[len(asked) :]
        assert learned == answer.input_ids[len(asked) :]
        assert tokenizer.decode(learned[:-1]) == text
        assert learned[-1] == tokenizer.eos_token_id


def test_pairs_that_do_not_fit_or_do_not_differ_are_left_out_by_reason(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = [
        PreferencePair("Say it. " * 40, "Yes.", "No."),
        replace(ROW, rejected="2, I think. " * 40),
        ROW,
        replace(ROW, chosen=" 2. "),
        replace(ROW, chosen="3, I think. " * 40),
    ]
    found = dpo.encode(tokenizer, rows, 100)
    assert found.kept == (2,)
    assert found.examples == dpo.encode(tokenizer, [ROW], 200).examples
    assert found.skipped == {NO_ROOM: 1, TOO_LONG: 2, SAME_TOKENS: 1}
    assert found.truncated_count == 0


def test_a_pair_that_just_fits_is_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    longest = dpo.encode(tokenizer, [ROW], 200).examples[0].length
    assert dpo.encode(tokenizer, [ROW], longest).kept == (0,)
    assert dpo.encode(tokenizer, [ROW], longest - 1).skipped == {TOO_LONG: 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Scores 3 and 1 against 1 and 2: h = 2 and −1; β·h = 1 and −0.5.
        (DpoSettings(beta=0.5), [math.log(1 + math.exp(-1)), math.log(1 + math.exp(0.5))]),
        # ε = 0.1: 0.9·0.31326 + 0.1·1.31326, and 0.9·0.97408 + 0.1·0.47408.
        (DpoSettings(beta=0.5, label_smoothing=0.1), [0.413262, 0.924077]),
        # Per token: 3/2 − 1/1 = 0.5 and 1/1 − 2/4 = 0.5; (0.5 − 1/(2·0.5))² = 0.25.
        (DpoSettings(beta=0.5, loss="ipo"), [0.25, 0.25]),
    ],
    ids=["dpo", "smoothed", "ipo"],
)
def test_losses_match_the_formulas(settings: DpoSettings, expected: list[float]) -> None:
    scores, lengths = torch.tensor([3.0, 1.0, 1.0, 2.0]), torch.tensor([2.0, 1.0, 1.0, 4.0])
    assert preference_loss(scores, lengths, settings).tolist() == pytest.approx(expected, abs=1e-5)


def test_chosen_answers_come_first_in_a_batch() -> None:
    pairs = tuple(map(with_reference, PAIRS[:2], [(-1.0, -2.0), (-3.0, -4.0)]))
    batch = collate(pairs)
    first = batch.rows.input_ids[:, :3].tolist()
    assert first == [[5, 6, 7], [11, 12, 13], [5, 6, 10], [11, 14, 15]]
    assert batch.lengths.tolist() == [3, 2, 1, 4]
    assert batch.reference.tolist() == [-1, -3, -2, -4]
    assert (batch.size, batch.target_count, batch.tokens) == (2, 2, 5 + 3 + 3 + 5)


def test_log_probabilities_of_a_batch_equal_those_of_single_pairs() -> None:
    model = tiny_model()
    at_once = dpo.log_probabilities(model, PAIRS)
    for pair, known in zip(PAIRS, at_once, strict=True):
        assert dpo.log_probabilities(model, [pair])[0] == pytest.approx(known, abs=1e-4)
    # A random model predicts almost uniformly: −ln 600 nats per token of an answer.
    lengths = [n for pair in PAIRS for n in (pair.chosen.target_count, pair.rejected.target_count)]
    per_token = np.array(at_once).ravel() / lengths
    assert per_token == pytest.approx(-math.log(600), rel=0.1)


def test_a_model_that_is_its_own_reference_is_undecided() -> None:
    model = tiny_model()
    pairs = tuple(map(with_reference, PAIRS, dpo.log_probabilities(model, PAIRS)))
    found = make_objective("dpo").measure(model, pairs)
    assert found.loss == pytest.approx(math.log(2), abs=1e-4)
    loss, figures = make_objective("dpo").loss(model, collate(pairs))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-4)
    assert figures["margin"] == pytest.approx(0, abs=1e-4)


def test_training_learns_the_preference_and_uses_no_dropout() -> None:
    objective = make_objective("dpo", DpoSettings(beta=0.5))
    known = dpo.log_probabilities(tiny_model(), PAIRS)  # a fresh adapter changes nothing
    pairs = tuple(map(with_reference, PAIRS, known))

    def trained(dropout: float) -> AdaptedModel:
        model = attach(tiny_model(), LoraSpec(r=4, alpha=8, dropout=dropout), 0)
        train(
            model,
            objective,
            pairs,
            LocalTraining(batch_size=2, lr=2e-2, steps=30, max_length=256),
        )
        return model

    model = trained(0.5)
    after = objective.measure(model, pairs)
    assert after.accuracy == 1.0
    assert after.loss < 0.5
    one, other = read_adapter(model), read_adapter(trained(0.0))
    assert all(np.array_equal(one[n], other[n]) for n in one)


def test_the_added_sft_loss_is_per_token_of_the_chosen_answers() -> None:
    model = tiny_model()
    pairs = tuple(map(with_reference, PAIRS, dpo.log_probabilities(model, PAIRS)))
    plain, _ = make_objective("dpo", DpoSettings()).loss(model, collate(pairs))
    mixed, _ = make_objective("dpo", DpoSettings(sft_weight=0.5)).loss(model, collate(pairs))
    chosen = sum(known[0] for known in dpo.log_probabilities(model, PAIRS))
    tokens = sum(pair.chosen.target_count for pair in PAIRS)
    assert mixed.item() - plain.item() == pytest.approx(-0.5 * chosen / tokens, abs=1e-4)
