"""Tests of the offline models: built once, completely or not at all, from English text."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.errors import ModelError
from learning.models.loader import load
from learning.offline import builder as offline
from learning.offline import causal_pretraining
from learning.offline.bigrams import count, fit
from learning.offline.bpe_tokenizer import END, END_ID, train_bpe
from learning.offline.cleaning import paragraphs, plainness
from learning.offline.corpus import comments, docstrings
from learning.offline.primer import read_primer
from learning.offline.training_texts import CorpusSizes, training_texts
from learning.offline.world import make_world_texts
from learning.progress import ProgressCallback
from learning.synthetic.instructions import make_instructions

MICRO = "offline:gpt2-micro"


def silent(message: str, fraction: float) -> None:
    pass


@pytest.fixture(scope="module")
def progress() -> list[float]:
    return []


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, progress: list[float]) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    offline.find_or_build(MICRO, folder, lambda message, fraction: progress.append(fraction))
    return folder


def test_a_built_model_is_found_again_without_a_build(cache: Path) -> None:
    def refuse(message: str, fraction: float) -> None:
        raise AssertionError("built again")

    path = offline.find_or_build(MICRO, cache, refuse)
    assert (path / "model.safetensors").is_file()


def test_a_second_build_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Path] = []

    def slow(
        config: causal_pretraining.CausalPretrainingConfig,
        folder: Path,
        report: ProgressCallback,
    ) -> None:
        built.append(folder)
        time.sleep(0.3)

    monkeypatch.setattr(causal_pretraining, "pretrain", slow)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: offline.find_or_build(MICRO, tmp_path, silent), range(2)))
    assert len(built) == 1
    assert paths[0] == paths[1]
    assert paths[0].is_dir()


def test_a_build_that_fails_leaves_no_half_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(
        config: causal_pretraining.CausalPretrainingConfig,
        folder: Path,
        report: ProgressCallback,
    ) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(causal_pretraining, "pretrain", broken)
    with pytest.raises(KeyboardInterrupt):
        offline.find_or_build(MICRO, tmp_path, silent)
    assert [p for p in (tmp_path / "models").iterdir() if p.is_dir()] == []


def test_a_cache_that_cannot_be_written_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        offline.find_or_build(MICRO, tmp_path / "cache", silent)


def test_progress_rises_from_zero_to_one(cache: Path, progress: list[float]) -> None:
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)


def test_the_model_takes_512_positions_and_its_tokenizer_loses_nothing(cache: Path) -> None:
    loaded = load(offline.find_or_build(MICRO, cache, silent), torch.device("cpu"))
    text = "Grüße, 42 naïve\n\tcafés: 你好"
    assert loaded.tokenizer.decode(loaded.tokenizer(text)["input_ids"]) == text
    assert loaded.tokenizer.eos_token == END
    assert loaded.tokenizer.pad_token != END
    with torch.no_grad():
        logits = loaded.model(torch.zeros(1, 512, dtype=torch.int64)).logits
    assert logits.shape == (1, 512, len(loaded.tokenizer))
    assert logits.isfinite().all()


def test_the_users_model_has_the_promised_size() -> None:
    config = offline.CAUSAL["gpt2-tiny"]
    assert config.vocab_size >= 4096
    assert config.positions >= 512


def test_the_same_text_and_seed_train_the_same_weights() -> None:
    config = replace(offline.CAUSAL["gpt2-micro"], steps=3)
    stream = torch.randint(512, (4000,), generator=torch.Generator().manual_seed(1))

    def weights() -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = causal_pretraining.empty_model(config, 512)
        causal_pretraining.train(model, stream, config, lambda done: None)
        return list(model.parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_smoothed_bigrams_are_distributions_that_prefer_seen_pairs() -> None:
    pairs = count(torch.tensor([0, 1, 0, 1, 0, 2, 0, 1]), 4)
    assert torch.allclose(pairs.following.sum(1), torch.ones(4))
    assert (pairs.following > 0).all()
    assert pairs.following[0].argmax() == 1
    # Token 0 occurs four times with a successor and has two kinds of it. Ends of pairs: 0 ends
    # (1,0) and (2,0), 1 ends (0,1), 2 ends (0,2); with the floor 0.3 each, of 5.2 in all.
    expected = (3 - 0.85 + 0.85 * 2 * 1.3 / 5.2) / 4
    assert pairs.following[0, 1].item() == pytest.approx(expected, rel=1e-5)


def test_fitted_embeddings_predict_the_likeliest_next_token() -> None:
    torch.manual_seed(0)
    pairs = count(torch.tensor([0, 1, 2, 3] * 50), 4)
    first, last = fit(pairs, 8, 60, lambda done: None)
    scores = torch.nn.functional.layer_norm(first, (8,)) @ last.T
    assert scores.argmax(1).tolist() == [1, 2, 3, 0]


def test_prose_is_kept_and_code_tables_and_markup_are_removed() -> None:
    text = (
        "Return the *first* item that :func:`is_good` likes, and stop there.\n\n"
        ">>> first([1, 2])\n1\n\n"
        "    x = compute(y)\n\n"
        "key_name    value_name\n====  ====\n\n"
        "The list is read from the left to the right.\nIt is not changed by this."
    )
    assert paragraphs(text) == [
        "The list is read from the left to the right. It is not changed by this."
    ]


def test_plainness_is_the_share_of_common_words() -> None:
    assert plainness("the cat is on the roof") == pytest.approx(4 / 6)
    assert plainness("") == 0.0


def test_docstrings_are_found_without_running_the_source() -> None:
    source = '"""Top."""\nraise SystemExit\nclass A:\n    """One."""\n    def f(self): "Two."\n'
    assert sorted(docstrings(source)) == [("A", "One."), ("f", "Two."), ("module", "Top.")]
    assert list(docstrings("not python")) == []


def test_comment_blocks_are_found_and_single_remarks_are_not() -> None:
    source = "# This is a long\n# remark about it.\nx = 1\n# single\ny = 2\n"
    assert [text for _, text in comments(source)] == ["This is a long\nremark about it."]


def test_the_tokenizer_learns_whole_words_and_keeps_its_special_tokens_first() -> None:
    tokenizer = train_bpe(["the cat sat on the mat"] * 50, 300)
    assert tokenizer.token_to_id(END) == END_ID
    assert len(tokenizer.encode(" the cat").ids) == 2


def test_the_projects_own_texts_are_the_same_every_time() -> None:
    sizes = CorpusSizes(passages=0, prose=5, world=20, primer=1)
    assert training_texts([], sizes, 0) == training_texts([], sizes, 0)
    assert len(training_texts([], sizes, 0)) == 25 + len(read_primer())


def test_the_reader_names_a_subject_for_every_paragraph() -> None:
    assert all(subject and text and "\n" not in text for subject, text in read_primer())


def test_no_answer_of_a_synthetic_task_is_read() -> None:
    read = "\n".join(text for _, text in make_world_texts(0, 5000))
    assert not any(row.output in read for row in make_instructions(0, 1000))
