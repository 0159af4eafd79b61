"""What a pruned encoder is: the record that lies beside its weights, and where its parts are.

A pruned encoder has fewer layers, fewer attention heads per layer and a narrower feed-forward part
than its source, in dense matrices that really are smaller. Layers and width fit into `config.json`;
heads do not, because transformers computes the width of a head from their number. `pruning.json`
says what was kept, and `reshape` gives a model that is being built the shapes of the kept heads.

In the data path: `learning/pruning/pruning` writes the record, `learning/encoders` reads it, on a
worker from a directory that another machine filled. So it is read as hostile.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from common.errors import ModelError
from common.protocol.fields import Record, Sha256

FILE = "pruning.json"
MAX_BYTES = 256 << 10
"""Longest record that is read, in bytes."""
MAX_LAYERS = 256
MAX_HEADS = 256
MAX_FFN = 1 << 17

_Index = Annotated[int, Field(ge=0, lt=256)]
_Heads = Annotated[tuple[_Index, ...], Field(min_length=1, max_length=MAX_HEADS)]


class Pruning(Record):
    """What was kept of a source model. Indices count from 0 in the source, and ascend.

    Attributes:
        format: Version of this record.
        source: Digest of the source model, for people: nothing is fetched by it.
        layers: The kept layers.
        heads: For each kept layer the kept attention heads.
        ffn: Width of every feed-forward part that is left, in units.
        source_layers: Layers of the source.
        source_heads: Heads per layer of the source.
        source_ffn: Width of the source's feed-forward parts.
    """

    format: Literal[1] = 1
    source: Sha256
    layers: Annotated[tuple[_Index, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    heads: Annotated[tuple[_Heads, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    ffn: Annotated[int, Field(ge=1, le=MAX_FFN)]
    source_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    source_heads: Annotated[int, Field(ge=1, le=MAX_HEADS)]
    source_ffn: Annotated[int, Field(ge=1, le=MAX_FFN)]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if len(self.heads) != len(self.layers):
            raise ValueError("it names heads for another number of layers than it keeps")
        if not _ascends(self.layers, self.source_layers):
            raise ValueError("its layers do not ascend below source_layers")
        if not all(_ascends(each, self.source_heads) for each in self.heads):
            raise ValueError("its heads do not ascend below source_heads")
        if self.ffn > self.source_ffn:
            raise ValueError("its ffn is wider than source_ffn")
        return self

    def encoded(self) -> bytes:
        """The record as canonical JSON: it is part of the model's digest."""
        return json.dumps(self.fields(), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _ascends(indices: tuple[int, ...], below: int) -> bool:
    return list(indices) == sorted(set(indices)) and indices[-1] < below


def read_pruning(path: Path) -> Pruning | None:
    """The record in a model directory; None where the model was not pruned.

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


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps its parts: `layers` from the backbone, the others from a layer.

    All but `layers` are linear. `joined` takes the heads' outputs side by side back to the hidden
    states; `up` widens them to the feed-forward units, `down` narrows those again.
    """

    layers: str
    query: str
    key: str
    value: str
    joined: str
    up: str
    down: str
    width: str  # key of the configuration


_BERT = Layout(
    "encoder.layer",
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
    "intermediate_size",
)
_DISTILBERT = Layout(
    "transformer.layer",
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
    "hidden_dim",
)
LAYOUTS = {
    "bert": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _DISTILBERT,
}
"""By `model_type`. Others are refused even where names agree: their attention may need its width
elsewhere, too, as Longformer's does."""


def layout_of(config: PretrainedConfig) -> Layout:
    """The layout of an architecture that can be pruned.

    Raises:
        ModelError: It is another architecture, or a decoder; names it.
    """
    layout = LAYOUTS.get(config.model_type)
    if layout is None or getattr(config, "is_decoder", False):
        kind = "decoder" if layout else "model"
        raise ModelError(
            f"a {kind} of type {config.model_type} cannot be pruned",
            f"use an encoder of type {', '.join(sorted(LAYOUTS))}",
        )
    return layout


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of an encoder with or without a head, in order; a view, not a copy."""
    stack = model.base_model.get_submodule(layout_of(model.config).layers)
    assert isinstance(stack, nn.ModuleList)
    return stack


def linear(layer: nn.Module, name: str) -> nn.Linear:
    """A linear part of a layer, by its name in the layout."""
    part = layer.get_submodule(name)
    assert isinstance(part, nn.Linear)
    return part


def head_size(config: PretrainedConfig) -> int:
    """Width of one attention head, before and after pruning: heads go, their width stays."""
    return int(config.hidden_size) // int(config.num_attention_heads)


def check_shapes(pruning: Pruning, config: PretrainedConfig) -> None:
    """Refuse a record that contradicts the configuration beside it.

    Raises:
        ModelError: Another number of layers, heads or units, or no architecture for pruning.
    """
    stated = (len(pruning.layers), pruning.source_heads, pruning.ffn)
    layout = layout_of(config)
    found = (config.num_hidden_layers, config.num_attention_heads, getattr(config, layout.width))
    if stated != found:
        raise ModelError(
            f"{FILE} states {stated} for layers, heads of the source and feed-forward width,"
            f" config.json states {found}",
            "prune the source model again, with `fccl prune`",
        )


def reshape(model: PreTrainedModel, pruning: Pruning) -> None:
    """Give the attention of a model that is being built room for the kept heads and no more.

    In place, without weights: they are loaded afterwards. `check_shapes` has passed.
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
