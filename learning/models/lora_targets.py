"""Check of the layers that `model.lora.targets` names, when a run is prepared.

PEFT accepts targets that cannot be merged or have no effect. A factor on a weight that two layers
share would change both layers when it is merged, and a name without a match is ignored if another
name matches.

In the data path: `preparation/run.py` calls it for the adapter of version 0.
"""

from __future__ import annotations

from collections import defaultdict

from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import ModelError
from common.protocol.tasks import LoraSpec
from learning.models.lora import AdaptedModel

_PREFIX = "base_model.model."
_KEY = "model.lora.targets"


def check_targets(model: AdaptedModel, settings: LoraSpec | None) -> None:
    """Check that every adapted layer can be trained, sent, exported and merged.

    Args:
        model: A model with its adapter attached.

    Raises:
        ModelError: A name matches no layer; or a layer shares its weight with another one, or is of
            a kind whose factors cannot be merged exactly.
    """
    if settings is None:
        return
    adapted = {
        name.removeprefix(_PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    if settings.targets != "all-linear":
        _check_names(settings.targets, adapted)
    users = _weight_users(model)
    for name, layer in adapted.items():
        _check_layer(name, layer.get_base_layer(), users)


def _check_names(targets: tuple[str, ...], adapted: dict[str, LoraLayer]) -> None:
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in adapted):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in adapted}))
            raise ModelError(
                f"{_KEY} names {target!r}, but the model has no such layer (others match: {known})",
                "correct the name, or leave it out",
            )


def _weight_users(model: nn.Module) -> dict[int, list[str]]:
    """Return the names of the layers that hold each weight, by the identity of the weight."""
    users: defaultdict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        if (weight := module._parameters.get("weight")) is not None:
            users[id(weight)].append(name.removeprefix(_PREFIX).removesuffix(".base_layer"))
    return users


def _check_layer(name: str, layer: nn.Module, users: dict[int, list[str]]) -> None:
    kind = type(layer)
    # Subclasses of Embedding scale their output, which a merge does not take into account.
    if not isinstance(layer, nn.Linear | Conv1D) and kind is not nn.Embedding:
        raise ModelError(
            f"{_KEY} includes {name}, a {kind.__name__}, into which an adapter cannot be merged",
            f"leave {_last(name)} out; name linear layers only",
        )
    others = [other for other in users[id(layer.weight)] if other != name]
    if others:
        raise ModelError(
            f"{_KEY} includes {name}, which shares its weight with {others[0]}: an adapter on it"
            " could never be merged",
            f"leave {_last(name)} out, or set model.lora = false to train all parameters",
        )


def _last(name: str) -> str:
    return name.rpartition(".")[2]
