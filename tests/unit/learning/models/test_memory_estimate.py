"""Tests of the estimate of the memory for training, with numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ModelError
from common.protocol.tasks import LoraSpec
from learning.models.memory_estimate import (
    PROCESS,
    ModelShape,
    Workload,
    estimate,
    read_shape,
    shape_of,
)
from tests.support.tiny_model import tiny_model

SHAPES = {
    "model.embed_tokens.weight": (1000, 64),
    "model.layers.0.q_proj.weight": (64, 64),
    "model.layers.0.norm.weight": (64,),
    "model.layers.0.up_proj.weight": (128, 64),
    "model.layers.1.q_proj.weight": (64, 64),
    "model.layers.1.norm.weight": (64,),
    "model.layers.1.up_proj.weight": (128, 64),
}
MODEL = shape_of(SHAPES)
IN_BLOCKS = 2 * (64 * 64 + 128 * 64)
WORK = Workload(rows=2, length=10, lora=LoraSpec(r=4, alpha=8))


def test_a_shape_follows_from_names_and_sizes_of_tensors() -> None:
    assert (MODEL.layers, MODEL.hidden, MODEL.vocabulary) == (2, 64, 1000)
    assert MODEL.parameters == 64_000 + IN_BLOCKS + 2 * 64
    assert sorted(MODEL.linear.values()) == [(64, 64), (64, 64), (128, 64), (128, 64)]


def test_the_parts_of_a_lora_task() -> None:
    found = estimate(MODEL, WORK)
    assert found.weights == 4 * MODEL.parameters
    assert found.adapter == 28 * 4 * 2 * ((64 + 64) + (128 + 64))
    # A token keeps, per block, (64 + 2·64) + (128 + 2·64) values of the layers and 4·64 others.
    assert found.activations == 20 * 2 * (192 + 256 + 256) * 4
    assert found.logits == 20 * 1000 * 12
    assert found.total == PROCESS + (
        found.weights + found.adapter + found.activations + found.logits
    )


def test_frozen_factors_a_have_neither_gradient_nor_moments() -> None:
    found = estimate(MODEL, replace(WORK, frozen=True))
    # B (out × 4) as before; A (4 × in) in the model and in the version.
    assert found.adapter == 4 * 2 * (28 * (64 + 128) + 8 * (64 + 64))


def test_formats_of_frozen_weights() -> None:
    outside = 64_000 + 2 * 64
    half = replace(WORK, weight_bytes=2)
    assert estimate(MODEL, half).weights == 2 * MODEL.parameters
    assert estimate(MODEL, replace(half, quantization="int8")).weights == 2 * outside + IN_BLOCKS
    nf4 = estimate(MODEL, replace(half, quantization="nf4")).weights
    assert nf4 == 2 * outside + IN_BLOCKS // 2 + IN_BLOCKS // 64 * 4


def test_checkpointing_keeps_the_inputs_of_the_blocks_and_one_block() -> None:
    whole = estimate(MODEL, WORK).activations
    kept = estimate(MODEL, replace(WORK, checkpointing=True)).activations
    assert kept == 20 * 2 * 64 * 4 + whole // 2


def test_only_named_layers_are_adapted_and_without_lora_everything_is_trained() -> None:
    named = LoraSpec(r=4, alpha=8, targets=("q_proj",))
    assert estimate(MODEL, replace(WORK, lora=named)).adapter == 28 * 4 * 2 * (64 + 64)
    full = estimate(MODEL, replace(WORK, lora=None))
    assert (full.weights, full.adapter) == (0, 28 * MODEL.parameters)


def test_the_files_of_a_model_are_read_without_loading_it(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    found = read_shape(tmp_path)
    assert (found.layers, found.hidden, found.vocabulary) == (2, 32, 600)
    assert len(found.linear) == 2 * 4
    assert isinstance(found, ModelShape)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="cannot be read"):
        read_shape(tmp_path)
