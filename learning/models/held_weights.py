"""Conversion of a loaded model's frozen weights to a format: float32, bfloat16 or quantized.

Layer by layer and in place, from whatever data type the files have. Linear layers and embeddings
take the format; norms, biases and the head of a classifier stay float32, because they are small or
trained. The output layer of a language model is never quantized.

In the data path: `learning.models.objective_model` calls it. Next: `learning.models.lora`.
"""

from __future__ import annotations

from typing import cast

import torch
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from learning.models.half_weights import hold_in_bfloat16
from learning.models.precision import WeightFormat
from learning.models.quantized import quantize_linear


def convert(model: PreTrainedModel, weights: WeightFormat, device: torch.device) -> None:
    """Convert the weights of a model and move it to a device; the format must not be float32."""
    if weights.quantized:
        _quantize(model, weights, device)
    if weights.dtype is torch.bfloat16:
        _halve(model)
    _rest_to_float32(model, weights)
    nn.Module.to(model, device)  # transformers wraps `to` in a way that loses its types
    nn.Module.requires_grad_(model, False)


def head_names(model: PreTrainedModel) -> list[str]:
    """Return the names of a classifier's head, whose end PEFT recognises."""
    ends = tuple(SEQ_CLS_HEAD_NAMES)
    return [name for name, _ in model.named_children() if name.endswith(ends)]


def _body(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Return all modules but those of a head."""
    heads = tuple(head_names(model))
    return [(name, m) for name, m in model.named_modules() if name.partition(".")[0] not in heads]


def _quantize(model: PreTrainedModel, weights: WeightFormat, device: torch.device) -> None:
    output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for name, layer in _body(model):
        if type(layer) in (nn.Linear, Conv1D) and layer is not output:
            parent = model.get_submodule(name.rpartition(".")[0])
            own = cast(nn.Linear, layer)
            setattr(parent, name.rpartition(".")[2], quantize_linear(own, weights, device))
    # With these marks PEFT attaches factors made for such layers.
    vars(model)["is_loaded_in_4bit"] = weights.quantization == "nf4"
    vars(model)["is_loaded_in_8bit"] = weights.quantization == "int8"


def _halve(model: PreTrainedModel) -> None:
    made: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for _, layer in _body(model):
        if type(layer) not in (nn.Linear, Conv1D) and not isinstance(layer, nn.Embedding):
            continue
        weight = cast(nn.Parameter, layer.weight)
        if id(weight) not in made:
            half = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
            made[id(weight)] = made[id(half)] = half
        layer.register_parameter("weight", made[id(weight)])
        hold_in_bfloat16(layer)


def _rest_to_float32(model: PreTrainedModel, weights: WeightFormat) -> None:
    """Convert what other layers hold, such as norms of a model in a bfloat16 file."""
    held = {
        id(layer.weight)
        for _, layer in _body(model)
        if isinstance(layer, nn.Linear | Conv1D | nn.Embedding)
    }
    for parameter in model.parameters():
        kept = id(parameter) in held and weights.dtype is torch.bfloat16
        if parameter.is_floating_point() and not kept:
            # A copy: the tensors of a loaded file keep all of it mapped.
            parameter.data = parameter.detach().to(torch.float32, copy=True)
