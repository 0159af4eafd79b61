"""The record beside the weights of a pruned encoder: the parts that were kept of its source.

A pruned encoder has fewer layers, fewer attention heads per layer and a narrower feed-forward part
than its source, in dense matrices that really are smaller. Layers and width fit into `config.json`;
heads do not, because transformers computes the width of a head from their number. `pruning.json`
lists the kept parts, and `reshape` gives a model that is being built the shapes of the kept heads.

In the data path: `learning.pruning.prune` writes the record, `learning.models.encoders` reads it,
on a worker from a directory that another machine filled. It is therefore read as hostile input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from common.errors import ModelError
from common.protocol.fields import Record, Sha256
from learning.pruning.layout import head_size, layers_of, layout_of, linear

FILE = "pruning.json"
MAX_BYTES = 256 << 10
"""Longest record that is read, in bytes."""
MAX_LAYERS = 256
MAX_HEADS = 256
MAX_FFN = 1 << 17

_Index = Annotated[int, Field(ge=0, lt=256)]
_Heads = Annotated[tuple[_Index, ...], Field(min_length=1, max_length=MAX_HEADS)]


class Pruning(Record):
    """Parts kept of a source model. Indices count from 0 in the source, in ascending order."""

    format: Literal[1] = 1  # version of this record
    source: Sha256  # digest of the source, for people; nothing is fetched by it
    layers: Annotated[tuple[_Index, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    heads: Annotated[tuple[_Heads, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    ffn: Annotated[
        int, Field(ge=1, le=MAX_FFN)
    ]  # width of every remaining feed-forward part, in units
    source_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    source_heads: Annotated[int, Field(ge=1, le=MAX_HEADS)]  # per layer
    source_ffn: Annotated[int, Field(ge=1, le=MAX_FFN)]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(self.heads) != len(self.layers):
            raise ValueError("it names heads for another number of layers than it keeps")
        if not _ascending(self.layers, self.source_layers):
            raise ValueError("its layers do not ascend below source_layers")
        if not all(_ascending(each, self.source_heads) for each in self.heads):
            raise ValueError("its heads do not ascend below source_heads")
        if self.ffn > self.source_ffn:
            raise ValueError("its ffn is wider than source_ffn")
        return self

    def encoded(self) -> bytes:
        """Return the record as canonical JSON, which is part of the model's digest."""
        return json.dumps(self.fields(), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _ascending(indices: tuple[int, ...], below: int) -> bool:
    return list(indices) == sorted(set(indices)) and indices[-1] < below


def read_pruning(path: Path) -> Pruning | None:
    """Return the record in a model directory, or None if the model was not pruned.

    Raises:
        ModelError: The record is too long, or not valid.
    """
    file = path / FILE
    if not file.is_file():
        return None
    remedy = "prune the source model again, with `fccl prune`"
    if file.stat().st_size > MAX_BYTES:
        raise ModelError(f"{file} has more than {MAX_BYTES} bytes", remedy)
    try:
        return Pruning.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        raise ModelError(f"{file} is not valid: {where} {first['msg']}"[:300], remedy) from None


def check_shapes(pruning: Pruning, config: PretrainedConfig) -> None:
    """Check a record against the configuration beside it.

    Raises:
        ModelError: The number of layers, heads or units differs, or the architecture cannot be
            pruned.
    """
    stated = (len(pruning.layers), pruning.source_heads, pruning.ffn)
    layout = layout_of(config)
    configured = (
        config.num_hidden_layers,
        config.num_attention_heads,
        getattr(config, layout.width),
    )
    if stated != configured:
        raise ModelError(
            f"{FILE} states {stated} for layers, heads of the source and feed-forward width,"
            f" config.json states {configured}",
            "prune the source model again, with `fccl prune`",
        )


def reshape(model: PreTrainedModel, pruning: Pruning) -> None:
    """Replace the attention of a model that is being built by one with only the kept heads.

    In place and without weights, which are loaded afterwards. Call `check_shapes` first.
    """
    layout, size = layout_of(model.config), head_size(model.config)
    for layer, heads in zip(layers_of(model), pruning.heads, strict=True):
        width = len(heads) * size
        for name in (layout.query, layout.key, layout.value):
            old = linear(layer, name)
            layer.set_submodule(name, nn.Linear(old.in_features, width, old.bias is not None))
        old = linear(layer, layout.joined)
        new = nn.Linear(width, old.out_features, old.bias is not None)
        layer.set_submodule(layout.joined, new)
