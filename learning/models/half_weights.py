"""Frozen weights held in bfloat16, for computation in float32 or in bfloat16.

Processors without bfloat16 units take ten times longer or more to multiply in it. There a layer
casts its weight to float32 in each forward pass, and again in the backward pass instead of keeping
the copy: a cast takes a hundredth of the time of a product with a few hundred tokens. Under
autocast the weight is used as it is.

In the data path: `learning.models.held_weights` prepares a loaded model with these layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D


class HalfLinear(nn.Linear):
    """A linear layer whose frozen weight is bfloat16."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return _product(input, self.weight, self.bias)


class HalfConv1D(Conv1D):
    """GPT-2's linear layer, with the transposed weight, frozen in bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _product(x, self.weight.t(), self.bias)


class _ProductWithCast(torch.autograd.Function):
    """x Wᵀ + b in the data type of x; only x has a gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)  # not its cast
        return linear(x, weight.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        (grad,) = grad_outputs
        return grad @ weight.to(grad.dtype), None, None


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type):
        return linear(x, weight, bias)
    apply: Any = _ProductWithCast.apply
    product: torch.Tensor = apply(x, weight, bias)
    return product


def hold_in_bfloat16(layer: nn.Module) -> None:
    """Change a layer's class so that it works with a bfloat16 weight; its input stays float32.

    Embeddings return float32, so that the sums of the layers after them are float32.
    """
    if type(layer) is nn.Linear:
        layer.__class__ = HalfLinear
    elif type(layer) is Conv1D:
        layer.__class__ = HalfConv1D
    elif isinstance(layer, nn.Embedding):
        layer.register_forward_hook(_to_float32)


def _to_float32(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    return output.float()
