"""Linear layers quantized by bitsandbytes: NF4 (QLoRA, Dettmers et al. 2023) or int8 (LLM.int8()).

Layers are replaced one by one in a model that is loaded already. Its weights are mapped from their
files, so that memory holds one unquantized layer at a time.

In the data path: `learning.models.held_weights` quantizes a loaded model here.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import ModelError
from learning.models.directory import read_json
from learning.models.precision import WeightFormat

_OUTLIERS = 6.0  # of activations: columns with larger values are not quantized (LLM.int8())


def check_quantizable(path: Path, weights: WeightFormat) -> None:
    """Check that the model in a directory can be held in a format on this machine.

    Raises:
        ModelError: bitsandbytes is missing, or the model is quantized already.
    """
    if not weights.quantized:
        return
    key = f'model.quantization = "{weights.quantization}"'
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{key} needs bitsandbytes, which is not installed here",
            "pip install 'fccl[quantized]'",
        )
    if "quantization_config" in (read_json(path / "config.json") or {}):
        raise ModelError(
            f"{key}, but the model in {path} is quantized already",
            'use the unquantized model, or set model.quantization = "none"',
        )


def quantize_linear(
    layer: nn.Linear | Conv1D, weights: WeightFormat, device: torch.device
) -> nn.Module:
    """Return a quantized layer that computes nearly the same, on a device."""
    bnb: Any = importlib.import_module("bitsandbytes.nn")  # an optional dependency, untyped
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):
        weight = weight.t().contiguous()
    width, height = weight.shape[1], weight.shape[0]
    new: Any
    with torch.device("meta"):
        if weights.quantization == "nf4":
            new = bnb.Linear4bit(
                width,
                height,
                bias=False,
                compute_dtype=weights.compute,
                compress_statistics=False,
                quant_type="nf4",
            )
        else:
            new = bnb.Linear8bitLt(
                width, height, bias=False, has_fp16_weights=False, threshold=_OUTLIERS
            )
    if weights.quantization == "nf4":
        new.weight = bnb.Params4bit(
            weight, requires_grad=False, compress_statistics=False, quant_type="nf4", module=new
        ).to(device)
        new.quant_state = new.weight.quant_state
        # It would repack the weight in place for inference, while another model trains with it.
        new.support_avx512bf16_for_cpu = False
    else:
        new.weight = bnb.Int8Params(weight, requires_grad=False).to(device)
        new.init_8bit_state()  # at once: layers that share the weight share its scales
        # It warns of every input that is not float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if layer.bias is not None:
        bias = layer.bias.detach().to(device, torch.float32)
        new.bias = nn.Parameter(bias, requires_grad=False)
    return new  # type: ignore[no-any-return]


def shared_state(model: nn.Module) -> list[object]:
    """Return what quantized layers keep beside their parameters, and never change."""
    found: list[object] = []
    for module in model.modules():
        state = getattr(module, "state", None)
        parts = (getattr(state, "CB", None), getattr(state, "SCB", None))
        found += [getattr(module, "quant_state", None), *parts]
    return [each for each in found if each is not None]
