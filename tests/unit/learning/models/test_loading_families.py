"""Checkpoints of every family are loaded in the forms in which people bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from common.errors import ConfigError, ModelError
from common.protocol.manifest import is_model_file
from learning.models.encoders import load_encoder
from learning.models.loader import load, load_tokenizer
from preparation.data import check_length
from tests.support.families import FORMS, POSITIONS, family_model, family_tokenizer, saved_family
from tests.support.tiny_encoder import encoder, encoder_tokenizer

CPU = torch.device("cpu")
IDS = torch.arange(1, 41)[None]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=IDS).logits
        return out


@pytest.mark.parametrize("name", FORMS)
def test_a_length_over_the_positions_of_any_family_is_refused(tmp_path: Path, name: str) -> None:
    _, config = load_tokenizer(saved_family(name, tmp_path))
    check_length(POSITIONS, config)
    with pytest.raises(ConfigError, match=f"the model has {POSITIONS} positions"):
        check_length(POSITIONS + 1, config)


def test_weights_in_shards_are_the_same_model_and_all_of_its_files_travel(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("llama")
    model = family_model("llama", tokenizer)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert all(is_model_file(path.name) for path in tmp_path.iterdir())
    assert torch.equal(logits(load(tmp_path, CPU).model), logits(model))


def test_weights_in_bfloat16_are_computed_with_in_float32(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("qwen2")
    family_model("qwen2", tokenizer).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = family_model("qwen2", tokenizer)
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    loaded = load(tmp_path, CPU).model
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_added_tokens_with_a_resized_embedding_are_accepted(tmp_path: Path, name: str) -> None:
    tokenizer = family_tokenizer(name)
    model = family_model(name, tokenizer)
    tokenizer.add_tokens(["zorblax", "<|extra|>"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(tmp_path, CPU)
    assert loaded.tokenizer("zorblax").input_ids[-1] == len(tokenizer) - 2
    assert torch.equal(logits(loaded.model), logits(model))


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_tokenizer_with_tokens_that_the_embedding_lacks_is_refused(
    tmp_path: Path, name: str, special: bool
) -> None:
    saved_family(name, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = len(tokenizer)
    tokenizer.add_tokens(["zorblax"], special_tokens=special)
    tokenizer.save_pretrained(tmp_path)
    for read in (load_tokenizer, lambda path: load(path, CPU)):
        with pytest.raises(ModelError, match=f"'zorblax' has id {rows}, but .* {rows} rows"):
            read(tmp_path)


def test_an_end_or_padding_token_without_a_row_is_refused(tmp_path: Path) -> None:
    saved_family("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"'\[PAD\]' has id"):
        load(tmp_path, CPU)


def test_an_encoder_whose_tokenizer_has_more_tokens_is_refused(tmp_path: Path) -> None:
    tokenizer = encoder_tokenizer()
    tokenizer.add_tokens([f"word{i}" for i in range(24)])
    encoder().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has tokens that the model lacks"):
        load_tokenizer(tmp_path)
    with pytest.raises(ModelError, match="has tokens that the model lacks"):
        load_encoder(tmp_path, ("a", "b"), CPU, 0)


def test_a_placeholder_for_images_may_lie_beyond_the_embedding_of_a_text_model(
    tmp_path: Path,
) -> None:
    """The tokenizer of Gemma 3 1B has one."""
    saved_family("gemma3", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    fields = json.loads(file.read_text()) | {"image_token": "<image_soft_token>"}
    file.write_text(json.dumps(fields))
    load(tmp_path, CPU)
    (tmp_path / "chat_template.jinja").write_text("<image_soft_token>{{ messages[0].content }}")
    with pytest.raises(ModelError, match="<image_soft_token>"):
        load(tmp_path, CPU)


def test_weights_that_the_files_lack_are_not_drawn_at_random(tmp_path: Path) -> None:
    saved_family("llama", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack lm_head.weight \(1 such tensors\)"):
        load(tmp_path, CPU)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("llama")
    family_model("llama", tokenizer).save_pretrained(tmp_path, max_shard_size="40KB")
    tokenizer.save_pretrained(tmp_path)
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelError, match=lost.name):
        load(tmp_path, CPU)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    family_model("llama", family_tokenizer("llama")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_a_model_that_needs_code_of_its_own_is_refused_as_such(tmp_path: Path) -> None:
    saved_family("llama", tmp_path)
    file = tmp_path / "config.json"
    own = {"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    with pytest.raises(ModelError, match="needs code that comes with it"):
        load_tokenizer(tmp_path)
