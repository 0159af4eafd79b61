"""Tests of activation checkpointing."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2LMHeadModel, PreTrainedModel

from common.errors import ModelError
from common.protocol.tasks import LoraSpec
from learning.models.lora import attach
from learning.objectives.registry import make_objective
from learning.training.accumulation import GradientAccumulator
from learning.training.checkpointing import can_checkpoint, checkpointed
from learning.training.compilation import compile_blocks
from learning.training.fast_path import fast_path
from learning.training.memory import MemorySettings
from tests.support.families import family_model, family_tokenizer
from tests.unit.learning.training.test_accumulation import adapted, case

OBJECTIVES = ("sft", "dpo", "classification")


def run(name: str, *, checkpointing: bool, compiled: bool = False) -> list[torch.Tensor]:
    """Return the gradient of a batch, in the mode and with the dropout in which a task trains."""
    model = adapted(name)
    objective, examples = case(name)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.2
    model.train(objective.dropout)
    if compiled:
        compile_blocks(model, backend="eager")
    weights = [p for p in model.parameters() if p.requires_grad]
    memory = MemorySettings(micro_batch=4, checkpointing=checkpointing)
    with torch.random.fork_rng(), fast_path(model, autocast=False):
        torch.manual_seed(1)
        GradientAccumulator(model, objective, weights, memory, autocast=False).compute(examples)
    return [w.grad for w in weights if w.grad is not None]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_is_the_same_with_dropout_and_without(name: str) -> None:
    kept, recomputed = run(name, checkpointing=False), run(name, checkpointing=True)
    assert len(kept) == len(recomputed) > 0
    for one, other in zip(kept, recomputed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.slow  # compiles
def test_compiled_blocks_are_checkpointed_too() -> None:
    kept = run("dpo", checkpointing=False)
    recomputed = run("dpo", checkpointing=True, compiled=True)
    for one, other in zip(kept, recomputed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def saved_bytes(model: PreTrainedModel, *, enabled: bool) -> int:
    """Return the bytes of the activations that a forward pass keeps for the backward pass."""
    storages: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.ones((4, 64), dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        checkpointed(model, enabled=enabled),
    ):
        out = model(input_ids=ids).last_hidden_state
    assert out.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("training", [False, True])
def test_less_memory_is_kept_in_either_mode_also_with_frozen_embeddings(*, training: bool) -> None:
    model = family_model("llama", family_tokenizer("llama"))
    attach(model, LoraSpec(r=4, alpha=8), 0)
    model.train(training)
    body = model.get_decoder()
    assert saved_bytes(body, enabled=True) < 0.3 * saved_bytes(body, enabled=False)


def test_the_model_is_as_before_afterwards() -> None:
    model = adapted("sft")
    base = model.get_base_model()
    assert isinstance(base, GPT2LMHeadModel)
    block = base.transformer.h[0]
    with checkpointed(model, enabled=True):
        assert "forward" in vars(block) and base.config.use_cache is False
    assert "forward" not in vars(block) and base.config.use_cache is True


def test_a_model_without_blocks_refuses_it() -> None:
    model = torch.nn.Linear(2, 2)
    assert not can_checkpoint(model)
    with pytest.raises(ModelError, match="no blocks"):
        GradientAccumulator(
            model,
            make_objective("sft"),
            list(model.parameters()),
            MemorySettings(checkpointing=True),
            autocast=False,
        )
