"""Tests of the offline encoder: initial weights, training objective, and loading by others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    PreTrainedTokenizerBase,
)

from learning.offline import builder as offline
from learning.offline import encoder_pretraining
from learning.offline.cooccurrence import count_cooccurrences, embed, positive_pmi
from learning.offline.opinions import make_opinions
from learning.offline.training_texts import training_texts
from learning.offline.wordpiece_tokenizer import (
    BEGIN_ID,
    END_ID,
    FIRST_ID,
    MASK_ID,
    SPECIAL,
    train_wordpiece,
)

MICRO = offline.ENCODERS["bert-micro"]


def silent(message: str, fraction: float) -> None:
    pass


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@pytest.fixture(scope="module")
def progress() -> list[float]:
    return []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, progress: list[float]) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    return offline.find_or_build(
        "offline:bert-micro", folder, lambda message, done: progress.append(done)
    )


@pytest.fixture(scope="module")
def tokenizer(built: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(built, local_files_only=True)


def test_the_encoder_loads_as_any_bert_does_and_takes_512_tokens(built: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(built, local_files_only=True)
    assert isinstance(model, BertForMaskedLM)
    assert not any(path.suffix in {".bin", ".pkl"} for path in built.iterdir())
    with torch.no_grad():
        logits = model(torch.full((1, 512), FIRST_ID)).logits
    assert logits.shape == (1, 512, model.config.vocab_size)
    assert logits.isfinite().all()


def test_a_classifier_starts_from_the_encoders_weights(built: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(built, local_files_only=True)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        built, num_labels=3, local_files_only=True
    )
    assert torch.equal(
        classifier.bert.embeddings.word_embeddings.weight,
        model.bert.embeddings.word_embeddings.weight,
    )
    assert classifier(torch.full((2, 5), FIRST_ID)).logits.shape == (2, 3)


def test_the_tokenizer_knows_its_special_tokens_and_frames_a_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids = tokenizer("Good FOOD")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert ids == tokenizer("good food")["input_ids"]
    names = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token]
    assert (*names, tokenizer.mask_token) == SPECIAL
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 512


def test_token_types_distinguish_the_texts_of_a_pair(tokenizer: PreTrainedTokenizerBase) -> None:
    types = tokenizer("good", "good")["token_type_ids"]
    middle = tokenizer("good")["input_ids"].index(END_ID) + 1
    assert types == [0] * middle + [1] * (len(types) - middle)


def test_progress_rises_from_zero_to_one(built: Path, progress: list[float]) -> None:
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)


def test_the_users_encoder_has_enough_to_prune() -> None:
    config = offline.ENCODERS["bert-tiny"]
    assert config.layers >= 4
    assert config.heads >= 4
    assert config.vocab_size >= 4096
    assert config.positions >= 512


def test_a_changed_configuration_or_text_makes_another_model() -> None:
    more = replace(MICRO, steps=MICRO.steps + 1)
    folders = {
        offline.folder_name("x", (config, encoder_pretraining.encoder_texts(config, [])))
        for config in (MICRO, more, replace(MICRO, opinions=1))
    }
    assert len(folders) == 3


def test_a_causal_models_folder_depends_on_its_own_configuration_and_texts_alone() -> None:
    causal, plan = offline.CAUSAL["gpt2-micro"], offline.find_plan("gpt2-micro")
    assert plan is not None
    assert plan.inputs == (astuple(causal), training_texts([], causal.sizes, causal.seed))


@pytest.mark.parametrize("head", [0, 1])
def test_heads_of_the_first_block_begin_by_attending_to_a_neighbour(head: int) -> None:
    with seeded(0):
        model = encoder_pretraining.empty_model(MICRO, 50)
        encoder_pretraining.set_initial_weights(
            model, torch.randint(FIRST_ID, 50, (2000,)), MICRO.position_dims
        )
    model.eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        seen = model.bert(torch.arange(FIRST_ID, 45)[None], output_attentions=True).attentions[0]
    places = torch.arange(1, 39)
    assert seen[0, head, 1:39].argmax(1).tolist() == (places + (-1, 1)[head]).tolist()


def test_an_untrained_model_predicts_masked_tokens_about_as_well_as_frequencies_do() -> None:
    with seeded(0):
        stream = torch.multinomial(1 / torch.arange(1.0, 101), 5000, replacement=True) + FIRST_ID
        model = encoder_pretraining.empty_model(MICRO, 105)
        encoder_pretraining.set_initial_weights(model, stream, MICRO.position_dims)
    batch = encoder_pretraining.sequences(stream, 32)[:50]
    hidden = batch >= FIRST_ID
    with torch.no_grad():
        states = encoder_pretraining.encode(model, torch.where(hidden, MASK_ID, batch), 0)
        got = encoder_pretraining.masked_loss(model, states, batch, hidden).item()
    shares = torch.bincount(stream) / len(stream)
    entropy = -(shares * shares.clamp(min=1e-9).log()).sum().item()
    assert got == pytest.approx(entropy, abs=0.25)
    assert got < math.log(100) - 0.5


def test_training_learns_to_predict_a_token_from_its_neighbour() -> None:
    config = replace(MICRO, steps=90, length=34, positions=64)
    with seeded(0):
        first = torch.randint(FIRST_ID, 15, (4000, 1))
        stream = torch.cat(
            (first, first + 10), dim=1
        ).flatten()  # each even token determines the next
        model = encoder_pretraining.empty_model(config, 100)
        encoder_pretraining.set_initial_weights(model, stream, config.position_dims)
        batch = encoder_pretraining.sequences(stream, 34)[:64]
        hidden = torch.zeros_like(batch, dtype=torch.bool)
        hidden[:, 2::8] = True

        def error() -> float:
            shown = torch.where(hidden, MASK_ID, batch)
            with torch.no_grad():
                return encoder_pretraining.masked_loss(
                    model, encoder_pretraining.encode(model, shown, 0), batch, hidden
                ).item()

        encoder_pretraining.train(model, stream, config, lambda done: None)
        assert error() < 0.5 * math.log(10)  # log 10: the loss from the place alone, even or odd


def test_the_same_text_and_seed_train_the_same_weights() -> None:
    config = replace(MICRO, steps=3)
    stream = torch.randint(FIRST_ID, 64, (4000,), generator=torch.Generator().manual_seed(1))

    def weights() -> list[torch.Tensor]:
        with seeded(3):
            model = encoder_pretraining.empty_model(config, 100)
            encoder_pretraining.set_initial_weights(model, stream, config.position_dims)
            encoder_pretraining.train(model, stream, config, lambda done: None)
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_sequences_are_framed_and_only_the_remainder_of_the_stream_is_lost() -> None:
    rows = encoder_pretraining.sequences(torch.tensor([5, 6, 7, 8, 9]), 4)
    assert rows.tolist() == [[BEGIN_ID, 5, 6, END_ID], [BEGIN_ID, 7, 8, END_ID]]


def test_of_the_chosen_tokens_four_fifths_are_masked_and_a_tenth_is_left() -> None:
    batch = torch.full((100, 1000), FIRST_ID)
    shown, hidden = encoder_pretraining.mask_tokens(
        batch, 0.3, 10_000, torch.Generator().manual_seed(0)
    )
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.01)
    chosen = shown[hidden]
    assert (chosen == MASK_ID).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (chosen == FIRST_ID).float().mean().item() == pytest.approx(0.1, abs=0.01)


@given(
    st.lists(st.lists(st.integers(0, 19), min_size=6, max_size=6), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_only_text_tokens_are_masked_and_the_rest_is_unchanged(
    rows: list[list[int]], chosen: float
) -> None:
    batch = torch.tensor(rows)
    shown, hidden = encoder_pretraining.mask_tokens(
        batch, chosen, 20, torch.Generator().manual_seed(0)
    )
    assert (batch[hidden] >= FIRST_ID).all()
    assert torch.equal(shown[~hidden], batch[~hidden])
    assert ((shown[hidden] == MASK_ID) | (shown[hidden] >= FIRST_ID)).all()


def test_cooccurrences_count_both_sides_and_near_tokens_more() -> None:
    counts = count_cooccurrences(torch.tensor([0, 1, 2]), 3).to_dense()
    assert counts.tolist() == [[0, 1, 0.5], [1, 0, 1], [0.5, 1, 0]]


def test_pmi_is_the_gain_of_a_neighbour_over_frequency() -> None:
    # Tokens 0 and 1 meet only each other, as do 2 and 3: each halves the choice, so log 2.
    counts = torch.zeros(4, 4)
    counts[0, 1] = counts[1, 0] = counts[2, 3] = counts[3, 2] = 5.0
    known = positive_pmi(counts.to_sparse().coalesce()).to_dense()
    assert known[0, 1].item() == pytest.approx(math.log(4))
    assert known[0, 2].item() == 0.0


def test_tokens_with_the_same_neighbours_begin_alike_and_absent_ones_at_zero() -> None:
    texts = [[5, 7, 9, 10], [5, 8, 9, 10], [6, 11, 12, 13]] * 30
    stream = torch.tensor([token for text in texts for token in [*text, *[END_ID] * 4]])
    with seeded(0):
        found = embed(stream, 16, 4)
    assert found[7] @ found[8] > found[7] @ found[11] + 0.5
    assert found[14].tolist() == [0.0] * 4
    assert found[7].norm().item() == pytest.approx(1.0)


def test_the_same_texts_give_the_same_vocabulary() -> None:
    texts = make_opinions(0, 200)
    first, second = (train_wordpiece(texts, 600, 64) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert first.convert_ids_to_tokens(list(range(FIRST_ID))) == list(SPECIAL)


def test_decoded_tokens_are_the_lower_cased_text() -> None:
    known = train_wordpiece(["the cat sat on the mat"] * 50, 60, 64)
    ids = known("The cat")["input_ids"]
    assert known.decode(ids, skip_special_tokens=True) == "the cat"
    assert len(ids) == 4


def test_opinions_repeat_by_seed_and_fill_every_slot() -> None:
    texts = make_opinions(3, 500)
    assert texts == make_opinions(3, 500)
    assert texts != make_opinions(4, 500)
    assert not any("{" in text or "  " in text for text in texts)


def test_verdicts_occur_with_words_of_their_own_side() -> None:
    texts = [text.lower() for text in make_opinions(0, 4000)]
    praise, blame = ("wonderful", "brilliant", "charming"), ("stupid", "tedious", "boring")

    def together(words: tuple[str, ...], verdicts: tuple[str, ...]) -> int:
        return sum(any(w in text for w in words) and any(v in text for v in verdicts)
                   for text in texts)  # fmt: skip

    good, bad = (
        ("recommended", "worth every", "well worth", "a must"),
        ("avoid", "skip", "never again", "stay away"),
    )
    assert together(praise, good) > together(blame, good)
    assert together(blame, bad) > together(praise, bad)
