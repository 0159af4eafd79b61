"""Activation checkpointing: activations of a block are computed again in the backward pass.

Only the inputs of the blocks are kept, which for a deep model is a small part of all activations;
a step takes about a third more time.

transformers checkpoints only what is in training mode, and preference objectives train in
evaluation mode, without dropout. So the blocks are wrapped here, in whichever mode they are.

Data path: around the passes of `learning.training.accumulation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def can_checkpoint(model: nn.Module) -> bool:
    """Return whether a model has blocks that can be checkpointed."""
    return any(isinstance(part, GradientCheckpointingLayer) for part in model.modules())


@contextmanager
def checkpointed(model: nn.Module, *, enabled: bool) -> Iterator[None]:
    """Checkpoint the blocks of a transformers model within the context, if `enabled`.

    Afterwards the model, which tasks share, is as before.
    """
    with ExitStack() as stack:
        if enabled:
            stack.enter_context(_without_cache(model))
            for part in model.modules():
                if isinstance(part, GradientCheckpointingLayer):
                    stack.enter_context(_wrapped(part))
        yield


@contextmanager
def _wrapped(block: nn.Module) -> Iterator[None]:
    # A compiled block is called by another attribute than `forward`.
    name = "forward" if getattr(block, "_compiled_call_impl", None) is None else _COMPILED
    before = vars(block).get(name)
    vars(block)[name] = _checkpointing(getattr(block, name))
    try:
        yield
    finally:
        if before is None:
            del vars(block)[name]
        else:
            vars(block)[name] = before


_COMPILED = "_compiled_call_impl"


def _checkpointing(call: Callable[..., Any]) -> Callable[..., Any]:

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return call(*args, **kwargs)
        return checkpoint(call, *args, use_reentrant=False, **kwargs)

    return run


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """Let a causal model keep no keys and values: a second pass would append to them."""
    found: list[Any] = [getattr(part, "config", None) for part in model.modules()]
    cached = [config for config in found if getattr(config, "use_cache", False)]
    for config in cached:
        config.use_cache = False
    try:
        yield
    finally:
        for config in cached:
            config.use_cache = True
