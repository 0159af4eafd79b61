import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import BertForSequenceClassification, DistilBertForSequenceClassification

from common.errors import ModelError
from common.protocol.tasks import LoraSpec
from learning.models.lora import adapter_config, attach, read_adapter, write_adapter
from tests.support.tiny_encoder import encoder_config
from tests.support.tiny_model import tiny_model

SETTINGS = LoraSpec(r=4, alpha=8, dropout=0.1)
IDS = torch.arange(1, 21).unsqueeze(0)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(input_ids=IDS).logits
        return out


def trained(seed: int = 0) -> PeftModel:
    """Return a model whose adapter is no longer zero."""
    model = attach(tiny_model(), SETTINGS, seed)
    rng = np.random.default_rng(seed)
    write_adapter(
        model,
        {n: rng.normal(size=t.shape).astype(np.float32) for n, t in read_adapter(model).items()},
    )
    return model


def test_a_fresh_adapter_changes_nothing_and_follows_its_seed() -> None:
    model = attach(tiny_model(), SETTINGS, 1)
    assert torch.equal(logits(model), logits(tiny_model()))
    same, other = (read_adapter(attach(tiny_model(), SETTINGS, s)) for s in (1, 2))
    mine = read_adapter(model)
    assert all(np.array_equal(mine[name], same[name]) for name in mine)
    assert any(not np.array_equal(mine[name], other[name]) for name in mine)


def test_attaching_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    attach(tiny_model(), SETTINGS, 1)
    assert torch.equal(torch.rand(3), expected)


def test_all_linear_layers_get_factors_and_only_these_are_trained() -> None:
    model = attach(tiny_model(), SETTINGS, 1)
    names = list(read_adapter(model))
    assert names == sorted(names)
    assert len(names) == 2 * 4 * 2  # layers × (c_attn, c_proj, c_fc, c_proj) × (A, B)
    assert all(n.endswith((".lora_A.weight", ".lora_B.weight")) for n in names)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == sum(t.size for t in read_adapter(model).values())


def test_a_written_adapter_reads_back_unchanged() -> None:
    model = trained()
    before = read_adapter(model)
    other = attach(tiny_model(), SETTINGS, 5)
    write_adapter(other, before)
    assert all(np.array_equal(before[n], t) for n, t in read_adapter(other).items())
    assert torch.equal(logits(other), logits(model))


def test_reading_an_adapter_copies_it() -> None:
    model = trained()
    before = read_adapter(model)
    for array in before.values():
        array[:] = 0
    assert any(t.any() for t in read_adapter(model).values())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_an_adapter_that_does_not_fit_changes_nothing(fault: str) -> None:
    model = trained()
    before = read_adapter(model)
    tensors = {n: np.zeros_like(t) for n, t in before.items()}
    name = list(tensors)[-1]
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        tensors["other"] = tensors[name]
    else:
        tensors[name] = tensors[name].T.copy()
    with pytest.raises(ModelError, match="other" if fault == "unknown" else name):
        write_adapter(model, tensors)
    assert all(np.array_equal(before[n], t) for n, t in read_adapter(model).items())


@pytest.mark.parametrize("targets", ["all-linear", ("c_attn",)])
def test_weights_and_config_form_an_adapter_directory_that_peft_loads(
    tmp_path: Path, targets: tuple[str, ...]
) -> None:
    model = attach(tiny_model(), LoraSpec(r=4, alpha=8, dropout=0.1, targets=targets), 3)
    rng = np.random.default_rng(0)
    tensors = {n: rng.normal(size=t.shape) for n, t in read_adapter(model).items()}
    write_adapter(model, {n: t.astype(np.float32) for n, t in tensors.items()})
    config = adapter_config(model, "offline:tiny", None)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(read_adapter(model), tmp_path / "adapter_model.safetensors")
    loaded = PeftModel.from_pretrained(tiny_model(), str(tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(tiny_model()))


def test_names_are_those_that_peft_itself_saves(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    model = trained()
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    mine = read_adapter(model)
    assert sorted(saved) == list(mine)
    assert all(np.array_equal(saved[n], mine[n]) for n in mine)


def test_the_config_is_the_same_for_the_same_adapter() -> None:
    one, two = (adapter_config(attach(tiny_model(), SETTINGS, 0), "x", "abc") for _ in range(2))
    assert json.dumps(one) == json.dumps(two)
    assert one["base_model_name_or_path"] == "x"
    assert one["revision"] == "abc"
    assert one["target_modules"] == sorted(one["target_modules"])


def test_unknown_targets_are_a_model_error() -> None:
    with pytest.raises(ModelError, match="no adapter can be attached"):
        attach(tiny_model(), LoraSpec(targets=("nothing",)), 0)


def test_a_deep_model_may_have_more_than_a_thousand_tensors() -> None:
    deep = BertForSequenceClassification(encoder_config(layers=90))
    assert len(read_adapter(attach(deep, SETTINGS, 0))) == 1084


def test_without_settings_all_parameters_are_the_adapter() -> None:
    model = attach(tiny_model(), None, 0)
    before = read_adapter(model)
    assert sum(t.size for t in before.values()) == model.num_parameters()
    assert all(p.requires_grad for p in model.parameters())
    moved = {name: tensor + np.float32(0.01) for name, tensor in before.items()}
    write_adapter(model, moved)
    assert all(np.array_equal(moved[n], t) for n, t in read_adapter(model).items())
    other = attach(tiny_model(seed=1), None, 0)
    write_adapter(other, moved)
    assert torch.equal(logits(other), logits(model))
    assert not torch.equal(logits(model), logits(tiny_model()))


def classifier() -> PeftModel:
    config = encoder_config()
    config.num_labels = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = attach(BertForSequenceClassification(config).eval(), SETTINGS, 1)
    assert isinstance(model, PeftModel)
    return model


def test_the_head_of_a_classifier_travels_with_its_factors() -> None:
    model = classifier()
    tensors = read_adapter(model)
    head = {n: t.shape for n, t in tensors.items() if ".lora_" not in n}
    assert head == {
        "base_model.model.classifier.weight": (3, 32),
        "base_model.model.classifier.bias": (3,),
    }
    assert all(np.array_equal(t, tensors[n]) for n, t in read_adapter(classifier()).items())
    rng = np.random.default_rng(0)
    moved = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in tensors.items()}
    write_adapter(model, moved)
    assert all(np.array_equal(moved[n], t) for n, t in read_adapter(model).items())
    ids = torch.arange(4, 14).unsqueeze(0)
    with torch.no_grad():
        hidden = model.eval()(input_ids=ids).logits
        moved["base_model.model.classifier.bias"] += np.float32([1, 0, -1])
        write_adapter(model, moved)
        shifted = model(input_ids=ids).logits - hidden
    assert shifted[0].tolist() == pytest.approx([1, 0, -1], abs=1e-5)


def test_a_head_of_two_layers_is_trained_whole_and_peft_reads_it_back(tmp_path: Path) -> None:
    base = DistilBertForSequenceClassification(encoder_config("distilbert")).eval()
    base.save_pretrained(tmp_path / "base")
    model = attach(base, SETTINGS, 1)
    tensors = read_adapter(model)
    layers = ("classifier", "pre_classifier")
    head = {f"base_model.model.{layer}.{part}" for layer in layers for part in ("bias", "weight")}
    assert {name for name in tensors if ".lora_" not in name} == head
    rng = np.random.default_rng(0)
    moved = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in tensors.items()}
    write_adapter(model, moved)
    save_file(moved, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter_config(model, "base", None)))
    other = DistilBertForSequenceClassification.from_pretrained(tmp_path / "base")
    assert torch.equal(logits(PeftModel.from_pretrained(other, tmp_path)), logits(model))


def test_the_mean_of_two_heads_is_the_head_of_the_mean() -> None:
    # What aggregation does: deltas of tensors are added, the head's as any other's.
    model = classifier()
    start = read_adapter(model)
    rng = np.random.default_rng(1)
    head = "base_model.model.classifier.weight"
    deltas = [rng.standard_normal(start[head].shape).astype(np.float32) for _ in range(2)]
    ids = torch.arange(4, 14).unsqueeze(0)

    def answer(delta: np.ndarray) -> torch.Tensor:
        write_adapter(model, start | {head: start[head] + delta})
        with torch.no_grad():
            out: torch.Tensor = model.eval()(input_ids=ids).logits
            return out

    one, other, mean = answer(deltas[0]), answer(deltas[1]), answer((deltas[0] + deltas[1]) / 2)
    assert torch.allclose(mean, (one + other) / 2, atol=1e-5)
