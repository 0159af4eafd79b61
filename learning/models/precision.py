"""Formats in which frozen weights are held in memory.

Training never changes them, so that they need not be float32: bfloat16 takes half the memory, and
the layers that bitsandbytes quantizes an eighth (nf4) or a quarter (int8). Trainable weights are
float32 in every format.

In the data path: `learning.models.adapted` loads a base model in the format of a task.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from common.protocol.fields import QuantizationName
from common.protocol.tasks import ModelPrecision


@dataclass(frozen=True)
class WeightFormat:
    """Format of the frozen weights of a model.

    Attributes:
        dtype: Of linear layers and embeddings that are not quantized; all others are float32.
        quantization: Of the linear layers, except the output layer and the head of a classifier.
        compute: Data type in which quantized layers compute.
    """

    dtype: torch.dtype = torch.float32
    quantization: QuantizationName = "none"
    compute: torch.dtype = torch.float32

    @property
    def quantized(self) -> bool:
        return self.quantization != "none"

    def describe(self) -> str:
        """Return e.g. `float32` or `nf4, bfloat16`."""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.quantization}, {dtype}" if self.quantized else dtype


FLOAT32 = WeightFormat()


def weight_format(precision: ModelPrecision | None, *, autocast: bool) -> WeightFormat:
    """Return the format in which this machine holds the weights of a run.

    Args:
        precision: Of the run; None for the defaults.
        autocast: Whether training computes in bfloat16 here. `auto` then means bfloat16, which
            costs no accuracy more. Beside quantized layers it always does: next to their rounding,
            that of the embeddings does not count.
    """
    precision = precision or ModelPrecision()
    quantized = precision.quantization != "none"
    half = precision.dtype == "bfloat16" or (precision.dtype == "auto" and (autocast or quantized))
    return WeightFormat(
        dtype=torch.bfloat16 if half else torch.float32,
        quantization=precision.quantization,
        compute=torch.bfloat16 if quantized and autocast else torch.float32,
    )
