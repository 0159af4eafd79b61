"""Frozen weights in bfloat16 or quantized: what is held how, and how near the results stay."""

import gc
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import ModelError
from common.protocol.tasks import LoraSpec, ModelPrecision
from learning.models import lora
from learning.models.adapted import AdapterModel, load_adapted
from learning.models.objective_model import load_for_objective
from learning.models.precision import FLOAT32, WeightFormat, weight_format
from learning.models.quantized import check_quantizable
from tests.support.families import saved_family
from tests.support.tiny_encoder import encoder, saved

CPU = torch.device("cpu")
HALF = weight_format(ModelPrecision(dtype="bfloat16"), autocast=False)
NF4 = weight_format(ModelPrecision(quantization="nf4"), autocast=False)
INT8 = weight_format(ModelPrecision(quantization="int8"), autocast=False)
SPEC = LoraSpec(r=2, alpha=4, dropout=0.0)
IDS = torch.arange(12)[None]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_family(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_family("llama", tmp_path_factory.mktemp("llama"))


def adapted(folder: Path, weights: WeightFormat, spec: LoraSpec | None = SPEC) -> AdapterModel:
    return load_adapted("sft", folder, (), CPU, spec, weights)


def loss_and_gradients(model: Any) -> tuple[float, torch.Tensor]:
    """Return the loss on a text, and the gradients of all factors as one vector."""
    tensors = lora.read_adapter(model)
    numbers = torch.Generator().manual_seed(0)
    for name in sorted(tensors):
        values = 0.05 * torch.randn(tensors[name].shape, generator=numbers)
        tensors[name] = values.numpy()
    lora.write_adapter(model, tensors)
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
    return float(loss.detach()), torch.cat(grads)


def test_auto_means_bfloat16_only_where_training_computes_in_it() -> None:
    assert weight_format(None, autocast=True).dtype is torch.bfloat16
    assert weight_format(None, autocast=False) == FLOAT32
    assert weight_format(ModelPrecision(dtype="float32"), autocast=True) == FLOAT32
    assert HALF.dtype is torch.bfloat16
    assert (NF4.quantization, NF4.compute) == ("nf4", torch.float32)


def test_bfloat16_holds_linear_layers_and_embeddings_and_leaves_the_rest_float32(
    folder: Path,
) -> None:
    model = adapted(folder, HALF).model
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            big = isinstance(module, nn.Linear | nn.Embedding | Conv1D) and key == "weight"
            half = big and not parameter.requires_grad
            assert parameter.dtype is (torch.bfloat16 if half else torch.float32), (name, key)


@pytest.mark.parametrize(
    ("weights", "loss_error", "cosine"), [(HALF, 0.01, 0.999), (INT8, 0.02, 0.995), (NF4, 0.2, 0.9)]
)
def test_losses_and_gradients_stay_close_to_those_of_float32(
    folder: Path, weights: WeightFormat, loss_error: float, cosine: float
) -> None:
    exact, exact_grads = loss_and_gradients(adapted(folder, FLOAT32).model)
    loss, grads = loss_and_gradients(adapted(folder, weights).model)
    assert grads.dtype is torch.float32
    assert abs(loss - exact) < loss_error
    assert torch.cosine_similarity(grads, exact_grads, dim=0) > cosine


def test_a_half_layer_computes_the_product_with_the_rounded_weight(llama: Path) -> None:
    half = load_for_objective("sft", llama, (), CPU, HALF).model
    whole = load_for_objective("sft", llama, (), CPU).model
    layer: Any = half.get_submodule("model.layers.0.mlp.up_proj")
    exact: Any = whole.get_submodule("model.layers.0.mlp.up_proj")
    x = torch.randn(3, layer.in_features, requires_grad=True)
    rounded = exact.weight.to(torch.bfloat16).float()
    assert torch.equal(layer(x), x @ rounded.T)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.allclose(gradient, rounded.sum(0).expand(3, -1), atol=1e-6)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model: Any = load_for_objective("sft", saved_family("qwen2", tmp_path), (), CPU, HALF).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("weights", [NF4, INT8])
def test_quantization_leaves_output_layer_and_embeddings_alone(
    folder: Path, weights: WeightFormat
) -> None:
    model: Any = load_for_objective("sft", folder, (), CPU, weights).model
    kinds = {type(module).__name__ for module in model.modules()}
    assert {"Linear4bit" if weights is NF4 else "Linear8bitLt"} <= kinds
    assert "Conv1D" not in kinds
    assert model.get_output_embeddings().weight.dtype is torch.bfloat16
    assert model.get_input_embeddings().weight.dtype is torch.bfloat16


@pytest.mark.parametrize("weights", [HALF, NF4, INT8])
def test_a_classifier_keeps_its_head_in_float32_and_trains_it(
    tmp_path: Path, weights: WeightFormat
) -> None:
    folder = saved(encoder(), tmp_path)
    model: Any = load_adapted("classification", folder, ("no", "yes"), CPU, SPEC, weights).model
    loss = model(input_ids=IDS, labels=torch.tensor([1])).loss
    loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained)
    assert all(p.dtype is torch.float32 and p.grad is not None for p in trained.values())


# one copy of the base per process


@pytest.mark.parametrize("weights", [FLOAT32, HALF, NF4, INT8])
def test_models_of_a_process_share_frozen_weights_and_nothing_else(
    llama: Path, weights: WeightFormat
) -> None:
    one, other = adapted(llama, weights), adapted(llama, weights)
    mine, theirs = dict(one.model.named_parameters()), dict(other.model.named_parameters())
    for name, parameter in mine.items():
        assert (parameter.data_ptr() == theirs[name].data_ptr()) != parameter.requires_grad, name
    with torch.inference_mode():
        before = other.model(input_ids=IDS).logits
        loss_and_tensors = {n: t + 0.1 for n, t in lora.read_adapter(one.model).items()}
        lora.write_adapter(one.model, loss_and_tensors)
        one.model.train()
        assert not torch.equal(one.model(input_ids=IDS).logits, before)
        assert torch.equal(other.model(input_ids=IDS).logits, before)
    assert not other.model.base_model.model.training
    assert one.tokenizer is not other.tokenizer


def test_shared_weights_are_freed_with_the_last_model(llama: Path) -> None:
    models = [adapted(llama, HALF), adapted(llama, HALF)]
    frozen = weakref.ref(next(p for p in models[0].model.parameters() if not p.requires_grad))
    del models[0]
    gc.collect()
    assert frozen() is not None
    models.clear()
    gc.collect()
    assert frozen() is None


def test_a_model_trained_as_a_whole_has_weights_of_its_own(llama: Path) -> None:
    one, other = adapted(llama, FLOAT32, None).model, adapted(llama, FLOAT32, None).model
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(a.data_ptr() != b.data_ptr() and a.requires_grad for a, b in pairs)


def test_files_that_have_changed_are_loaded_again(tmp_path: Path) -> None:
    saved_family("llama", tmp_path)
    first = adapted(tmp_path, FLOAT32)
    saved_family("llama", tmp_path, hidden_size=48)
    assert adapted(tmp_path, FLOAT32).model.config.hidden_size == 48
    assert first.model.config.hidden_size == 32


# refusals


def test_quantization_without_bitsandbytes_is_refused_with_the_remedy(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError) as refusal:
        adapted(llama, NF4)
    assert refusal.value.remedy == "pip install 'fccl[quantized]'"


def test_quantization_of_a_quantized_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    with pytest.raises(ModelError, match="quantized already"):
        check_quantizable(tmp_path, NF4)
    check_quantizable(tmp_path, FLOAT32)


def test_a_task_that_trains_quantized_weights_is_refused(llama: Path) -> None:
    with pytest.raises(ModelError, match="cannot be trained"):
        adapted(llama, NF4, None)
