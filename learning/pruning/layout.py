"""Names of layers, attention heads and feed-forward units in the encoders that can be pruned.

`learning.pruning.importance` and `learning.pruning.prune` find the parts to measure and to cut
here; `learning.pruning.record` gives a model that is being built the shapes of a pruned one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from common.errors import ModelError


@dataclass(frozen=True)
class Layout:
    """Names of an architecture's parts: `layers` within the backbone, the others within a layer.

    All but `layers` are linear. `joined` maps the heads' outputs, side by side, back to the hidden
    states; `up` widens them to the feed-forward units, `down` narrows those again.
    """

    layers: str
    query: str
    key: str
    value: str
    joined: str
    up: str
    down: str
    width: str  # key of the feed-forward width in the configuration


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
"""Layouts by `model_type`. Others are refused even where names agree: their attention may need its
width elsewhere, too, as Longformer's does.
"""


def layout_of(config: PretrainedConfig) -> Layout:
    """Return the layout of an architecture that can be pruned.

    Raises:
        ModelError: It is another architecture, or a decoder.
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
    """Return the layers of an encoder with or without a head, in order; a view, not a copy."""
    stack = model.base_model.get_submodule(layout_of(model.config).layers)
    assert isinstance(stack, nn.ModuleList)
    return stack


def linear(layer: nn.Module, name: str) -> nn.Linear:
    """Return a linear part of a layer by its name in the layout."""
    part = layer.get_submodule(name)
    assert isinstance(part, nn.Linear)
    return part


def head_size(config: PretrainedConfig) -> int:
    """Return the width of one attention head; pruning removes heads and keeps their width."""
    return int(config.hidden_size) // int(config.num_attention_heads)
