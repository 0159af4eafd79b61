"""Tests of the conversion of GGUF files: the same model, tokenizer and end token as in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from common.errors import ModelError
from learning.models import base
from learning.models.loader import LoadedModel, load
from learning.offline.gguf_conversion import convert
from tests.support.tiny_gguf import TEMPLATE, tiny_llama, write_gguf

CPU = torch.device("cpu")
TITLE = "converting a model"


def silent(message: str, fraction: float) -> None:
    pass


def converted(tmp_path: Path, *, tied: bool = True) -> LoadedModel:
    file = write_gguf(tiny_llama(tied=tied), tmp_path / "model.gguf")
    folder = tmp_path / "model"
    folder.mkdir()
    convert(file, TITLE, folder, silent)
    return load(folder, CPU)


@pytest.mark.parametrize("tied", [True, False])
def test_the_converted_model_computes_the_same_logits(tmp_path: Path, tied: bool) -> None:
    original, loaded = tiny_llama(tied=tied), converted(tmp_path, tied=tied)
    ids = torch.arange(3, 63)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, original(ids).logits)
    output, embedding = loaded.model.get_output_embeddings(), loaded.model.get_input_embeddings()
    assert (output.weight is embedding.weight) == tied


def test_model_tokenizer_and_generation_settings_agree_about_special_tokens(tmp_path: Path) -> None:
    loaded = converted(tmp_path)
    tokenizer, config = loaded.tokenizer, loaded.model.config
    generation = loaded.model.generation_config
    assert generation is not None
    for holder in (tokenizer, config, generation):
        ids = holder.bos_token_id, holder.eos_token_id, holder.pad_token_id
        assert ids == (1, 2, 2)
    assert len(tokenizer) == config.vocab_size
    assert tokenizer.model_max_length == config.max_position_embeddings == 128
    assert tokenizer.chat_template == TEMPLATE


def test_single_digits_and_the_spaces_before_them_are_tokens_of_their_own(tmp_path: Path) -> None:
    tokenizer = converted(tmp_path).tokenizer
    assert tokenizer.tokenize("the  42") == ["t", "he", "ĠĠ", "4", "2"]
    text = "Grüße, 42 naïve\n\tcafés: 你好"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_directory_is_a_causal_model_that_can_be_a_base(tmp_path: Path) -> None:
    converted(tmp_path)
    found = base.resolve(str(tmp_path / "model"), None, tmp_path, silent, "causal")
    config = json.loads((found.path / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["rms_norm_eps"] == 1e-5


def test_progress_rises_from_zero_to_one(tmp_path: Path) -> None:
    file, folder = write_gguf(tiny_llama(), tmp_path / "model.gguf"), tmp_path / "model"
    folder.mkdir()
    progress: list[tuple[str, float]] = []
    convert(file, TITLE, folder, lambda message, fraction: progress.append((message, fraction)))
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == ((TITLE, 0.0), (TITLE, 1.0))


def test_a_file_that_is_cut_off_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = write_gguf(tiny_llama(), tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:30_000])
    with pytest.raises(ModelError, match=r"model.gguf cannot be converted: \w+"):
        convert(file, TITLE, tmp_path, silent)


def test_a_tokenizer_that_splits_text_in_another_way_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tiny_llama(), tmp_path / "model.gguf", splitting="llama-bpe")
    with pytest.raises(ModelError, match="tokenizer is gpt2/llama-bpe, not gpt2/smollm"):
        convert(file, TITLE, tmp_path, silent)
