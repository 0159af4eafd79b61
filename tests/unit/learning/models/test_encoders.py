"""Tests of loading encoders: new weights and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertForSequenceClassification, BertLMHeadModel

from common.errors import ModelError
from learning.models.encoders import load_encoder, load_whole
from tests.support.tiny_encoder import encoder, encoder_config, saved

CPU = torch.device("cpu")
SIGNS = ("negative", "positive")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encoder(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint whose head has three labels."""
    config = encoder_config()
    config.num_labels = 3
    return saved(BertForSequenceClassification(config), tmp_path_factory.mktemp("trained"))


def copy_with(path: Path, folder: Path, **fields: object) -> Path:
    """Return a copy of a model directory with other values in its configuration."""
    for file in path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_head_has_the_labels_in_the_given_order(plain: Path) -> None:
    loaded = load_encoder(plain, SIGNS, CPU, seed=0)
    assert loaded.model.config.id2label == {0: "negative", 1: "positive"}
    assert loaded.model.config.label2id == {"negative": 0, "positive": 1}
    assert not loaded.model.training
    batch = loaded.tokenizer(["a good film", "bad"], padding=True, return_tensors="pt")
    assert loaded.model(**batch).logits.shape == (2, 2)


def test_the_same_seed_gives_the_same_head_and_another_seed_another(plain: Path) -> None:
    heads = [load_encoder(plain, SIGNS, CPU, seed).model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_loading_leaves_the_global_random_numbers_alone(plain: Path) -> None:
    before = torch.random.get_rng_state()
    load_encoder(plain, SIGNS, CPU, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_pooler_that_the_checkpoint_lacks_comes_from_the_seed(tmp_path: Path) -> None:
    source = BertForSequenceClassification(encoder_config())
    source.bert.pooler = None
    path = saved(source, tmp_path)
    poolers = [load_encoder(path, SIGNS, CPU, seed).model.bert.pooler.dense for seed in (1, 1, 2)]
    assert torch.equal(poolers[0].weight, poolers[1].weight)
    assert not torch.equal(poolers[0].weight, poolers[2].weight)


def test_a_head_with_as_many_labels_is_kept_and_otherwise_replaced(trained: Path) -> None:
    own = load_whole(trained, CPU).model
    assert torch.equal(load_encoder(trained, "abc", CPU, 5).model.classifier.weight,
                       own.classifier.weight)  # fmt: skip
    fresh = load_encoder(trained, SIGNS, CPU, 5).model
    assert fresh.classifier.weight.shape == (2, 32)
    assert torch.equal(fresh.bert.pooler.dense.weight, own.bert.pooler.dense.weight)


def test_a_head_for_these_labels_in_another_order_is_refused(trained: Path, tmp_path: Path) -> None:
    names = {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"}
    path = copy_with(trained, tmp_path, id2label=names, label2id={v: k for k, v in names.items()})
    with pytest.raises(ModelError, match="another order") as error:
        load_encoder(path, ("contradiction", "entailment", "neutral"), CPU, seed=0)
    assert "data.labels to ['contradiction', 'neutral', 'entailment']" in error.value.remedy
    for fitting in ("contradiction", "neutral", "entailment"), ("a", "b", "c"), SIGNS:
        load_encoder(path, fitting, CPU, seed=0)


def test_a_tokenizer_without_a_pad_token_takes_the_one_of_its_vocabulary(tmp_path: Path) -> None:
    loaded = load_whole(saved(encoder(), tmp_path, pad=None), CPU)
    assert (loaded.tokenizer.pad_token, loaded.tokenizer.pad_token_id) == ("[PAD]", 0)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    path = saved(encoder(), tmp_path, pad=None)
    text = (path / "tokenizer.json").read_text()
    (path / "tokenizer.json").write_text(text.replace("[PAD]", "[ODD]"))
    with pytest.raises(ModelError, match=r"no padding token.*add \[PAD\]"):
        load_whole(path, CPU)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_hidden_layers": 5}, "lack encoder.layer.4"),
        ({"num_hidden_layers": 10**9}, "states 1000000000 layers"),
        ({"num_hidden_layers": "many"}, "cannot be loaded"),
        ({"hidden_size": 4 * 10**8}, "weights, but the files have"),
        ({"max_position_embeddings": 10**13}, "weights, but the files have"),
        ({"intermediate_size": 128}, "in another shape"),
        ({"vocab_size": -1}, "cannot be loaded"),
        ({"hidden_act": "os.system"}, "cannot be loaded"),
        ({"architectures": 7}, "cannot be loaded"),
        ({"architectures": ["BertLMHeadModel"]}, "causal language model"),
        ({"attn_implementation": "someone/kernels"}, "attention code from elsewhere"),
        ({"model_type": "none-such"}, "cannot be loaded"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_before_it_takes_memory(
    plain: Path, tmp_path: Path, fields: dict[str, object], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        load_whole(copy_with(plain, tmp_path, **fields), CPU)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    path = saved(encoder(), tmp_path)
    (path / "model.safetensors").unlink()
    torch.save(encoder().state_dict(), path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="the files have 0 bytes"):
        load_whole(path, CPU)


def test_a_decoder_of_the_family_is_refused(tmp_path: Path) -> None:
    config = encoder_config()
    config.is_decoder = True
    with pytest.raises(ModelError, match="BertLMHeadModel"):
        load_encoder(saved(BertLMHeadModel(config), tmp_path), SIGNS, CPU, 0)
