"""Estimate of the memory that training a model takes, from the headers of its files.

Nothing is loaded. The estimate says whether a run could fit a machine; it is rough, and was a fifth
too low in the measurement that docs/learning.md reports.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import ModelError
from common.protocol.fields import QuantizationName
from common.protocol.tasks import LoraSpec

PROCESS = 700 << 20
"""Bytes of Python with torch, transformers and PEFT, before any model."""
_FLOAT = 4
_BLOCK = re.compile(r"\.(\d+)\.")  # a layer's number in the name of its tensors
_HEADER = 8  # bytes that hold the length of a safetensors header
_MAX_HEADER = 100 << 20
_TRAINED = 4 * _FLOAT  # a trained weight, its gradient and AdamW's two moments
_COPIES = 3 * _FLOAT  # version, local weights and delta, while an update is made
_LOGITS = 3 * _FLOAT  # logits, their log-probabilities and the gradient


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model that decide its memory.

    Attributes:
        parameters: Number of all parameters.
        layers: Number of blocks.
        hidden: Width of the states between the blocks.
        vocabulary: Rows of the embedding.
        linear: (outputs, inputs) of every linear layer in the blocks, by the tensor's name.
    """

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    linear: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Workload:
    """What goes through a model at once, and how its weights are held.

    Attributes:
        rows: Examples of a micro-batch; two for each preference pair.
        length: Tokens of a row.
        lora: None trains all parameters.
        frozen: The factors A of LoRA are not trained.
        weight_bytes: Of a frozen weight that is not quantized, 2 or 4.
        quantization: Of the linear layers.
        autocast: Whether training computes in bfloat16.
        checkpointing: Whether activations are computed again instead of being kept.
        generates: Whether every token has logits over the vocabulary, as in causal models.
    """

    rows: int
    length: int
    lora: LoraSpec | None
    weight_bytes: int = _FLOAT
    quantization: QuantizationName = "none"
    autocast: bool = False
    checkpointing: bool = False
    generates: bool = True
    frozen: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of the parts of a training process."""

    weights: int
    adapter: int  # trained weights with gradient, moments and the copies of an update
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return PROCESS + self.weights + self.adapter + self.activations + self.logits


def estimate(model: ModelShape, work: Workload) -> MemoryEstimate:
    """Return the memory that training takes at its peak."""
    tokens = work.rows * work.length
    return MemoryEstimate(
        weights=_weights(model, work),
        adapter=_adapter(model, work),
        activations=tokens * _activations_per_token(model, work),
        logits=tokens * model.vocabulary * _LOGITS if work.generates else 0,
    )


def read_shape(path: Path) -> ModelShape:
    """Return the shape of the model in a directory.

    Raises:
        ModelError: Its files cannot be read.
    """
    try:
        shapes = {
            name: tuple(entry["shape"])
            for file in sorted(path.glob("*.safetensors"))
            for name, entry in _header(file).items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the weights in {path} cannot be read: {error}", "copy the whole model again"
        ) from None
    return shape_of(shapes)


def shape_of(shapes: Mapping[str, tuple[int, ...]]) -> ModelShape:
    """Return the shape of a model whose tensors have these names and shapes."""
    inside = {name: _BLOCK.search(name) for name in shapes}
    blocks = {match.group(1) for match in inside.values() if match}
    linear = {
        name: (shape[0], shape[1])
        for name, shape in shapes.items()
        if inside[name] and len(shape) == 2
    }
    outside = [shape for name, shape in shapes.items() if not inside[name] and len(shape) == 2]
    vocabulary, hidden = max(outside, default=(0, 0))
    return ModelShape(
        parameters=sum(_size(shape) for shape in shapes.values()),
        layers=len(blocks),
        hidden=hidden,
        vocabulary=vocabulary,
        linear=linear,
    )


def _header(file: Path) -> dict[str, dict[str, list[int]]]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER), "little")
        if length > _MAX_HEADER:
            raise ValueError("the header is too long")
        header: dict[str, dict[str, list[int]]] = json.loads(stream.read(length))
        return header


def _weights(model: ModelShape, work: Workload) -> int:
    if work.lora is None:
        return 0  # they are trained, and counted there
    inside = sum(outputs * inputs for outputs, inputs in model.linear.values())
    outside = (model.parameters - inside) * work.weight_bytes
    match work.quantization:
        case "none":
            return outside + inside * work.weight_bytes
        case "int8":
            return outside + inside
        case "nf4":
            return outside + inside // 2 + inside // 64 * _FLOAT  # a scale for each 64 weights


def _adapter(model: ModelShape, work: Workload) -> int:
    """Return the bytes of what is trained and, with frozen factors A, of what stays beside it."""
    if (lora := work.lora) is None:
        return model.parameters * (_TRAINED + _COPIES)
    adapted = [
        shape
        for name, shape in model.linear.items()
        if lora.targets == "all-linear" or _module(name) in lora.targets
    ]
    trained = lora.r * sum(outputs for outputs, _ in adapted)
    rest = lora.r * sum(inputs for _, inputs in adapted)
    each = 2 * _FLOAT if work.frozen else _TRAINED + _COPIES  # in the model and in the version
    return trained * (_TRAINED + _COPIES) + rest * each


def _module(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def _activations_per_token(model: ModelShape, work: Workload) -> int:
    """Return the bytes that a token keeps until the backward pass.

    A linear layer with LoRA keeps its input, also after dropout, and what follows keeps its output;
    the norms and the sums of a block keep four states. Autocast keeps bfloat16 beside float32.
    """
    layers = max(1, model.layers)
    values = sum(outputs + 2 * inputs for outputs, inputs in model.linear.values())
    size = _FLOAT * 3 // 4 if work.autocast else _FLOAT
    kept = values * size + layers * 4 * model.hidden * _FLOAT
    if not work.checkpointing:
        return kept
    return layers * model.hidden * _FLOAT + kept // layers


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
