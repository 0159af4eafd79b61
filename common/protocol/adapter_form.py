"""Forms of a version: the part of it that one client gets, and whose change the client sends.

Under most aggregation rules that is all of it. Under `ffa` the factors A of LoRA stay as version 0
has them and are fetched once; under `product` a client may have a lower rank than the versions,
whose leading components it gets.

`coordinator/storage/versions.py` publishes the forms, `worker/models/source.py` puts what a client
fetched together again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.protocol.layout import Shape, TensorLayout
from common.protocol.tasks import LoraSpec
from common.protocol.tensors import Array, Tensors

_FROZEN = ".lora_A."
_FACTOR = re.compile(r"(.*)\.lora_(?:embedding_)?([AB])(\.[^.]+)?")


@dataclass(frozen=True)
class AdapterForm:
    """Form in which versions travel to a client.

    Attributes:
        frozen: The factors A do not travel.
        rank: Rank of the factors; None is that of the version.
    """

    frozen: bool = False
    rank: int | None = None

    def of(self, tensors: Mapping[str, Array]) -> Tensors:
        """Return the tensors that travel, of a version or of a difference of two."""
        return {
            name: self._cut(name, tensor)
            for name, tensor in tensors.items()
            if not (self.frozen and is_frozen(name))
        }

    def layout(self, layout: TensorLayout) -> TensorLayout:
        """Return the layout of the tensors that travel, from that of a version."""
        return TensorLayout(
            tuple(
                (name, self._cut_shape(name, shape))
                for name, shape in layout.tensors
                if not (self.frozen and is_frozen(name))
            )
        )

    def lora(self, spec: LoraSpec) -> LoraSpec:
        """Return the settings of LoRA at this rank, with the same factor alpha / r.

        Raises:
            ValueError: That alpha is not a whole number.
        """
        return spec if self.rank is None else lora_of_rank(spec, self.rank)

    def _cut(self, name: str, tensor: Array) -> Array:
        match None if self.rank is None else factor_of(name):
            case None:
                return tensor
            case _, "A":
                return tensor[: self.rank]
            case _:
                return tensor[:, : self.rank].copy()  # contiguous

    def _cut_shape(self, name: str, shape: Shape) -> Shape:
        factor = None if self.rank is None else factor_of(name)
        if factor is None or self.rank is None:
            return shape
        first, second = shape
        if factor[1] == "A":
            return min(first, self.rank), second
        return first, min(second, self.rank)


COMPLETE = AdapterForm()
"""The whole of a version."""


def pad_factors(tensors: Mapping[str, Array], like: Mapping[str, Array]) -> Tensors:
    """Return tensors with zeros added to factors of a lower rank than those of a version."""
    padded = {}
    for name, tensor in tensors.items():
        missing = [
            (0, size - own) for size, own in zip(like[name].shape, tensor.shape, strict=True)
        ]
        padded[name] = np.pad(tensor, missing) if any(map(any, missing)) else tensor
    return padded


def is_frozen(name: str) -> bool:
    """Return whether a tensor is a factor A of a linear layer, which `ffa` leaves as it is.

    The factors of an embedding begin the other way round, with A at zero, so both are trained.
    """
    return _FROZEN in name


def frozen_part(tensors: Mapping[str, Array]) -> Tensors:
    """Return the tensors of a version that `ffa` leaves as they are."""
    return {name: tensor for name, tensor in tensors.items() if is_frozen(name)}


def factor_of(name: str) -> tuple[str, str] | None:
    """Return the layer of a factor of LoRA, and A or B; None for another tensor."""
    match = _FACTOR.fullmatch(name)
    return None if match is None else (match[1], match[2])


def lora_of_rank(spec: LoraSpec, rank: int) -> LoraSpec:
    """Return settings of LoRA with another rank and the same factor alpha / r.

    Raises:
        ValueError: That alpha is not a whole number.
    """
    alpha, rest = divmod(spec.alpha * rank, spec.r)
    if rest or not alpha:
        raise ValueError(f"alpha / r is {spec.alpha}/{spec.r}, which no whole alpha gives")
    return spec.model_copy(update={"r": rank, "alpha": alpha})
