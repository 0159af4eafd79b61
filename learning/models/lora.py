"""Adapters: the trained part of a model, read and written as plain arrays.

Low-rank factors attached to a frozen base model, with the head where the model classifies; or, for
a small model and without LoRA, all of its parameters.

LoRA (Hu et al. 2021): a frozen W becomes W + (α/r)·B·A with B zero at first. These factors are all
that a federation moves. Names and shapes are those of PEFT's `adapter_model.safetensors`, so that
every version is a directory which `PeftModel.from_pretrained` loads.

Data path: `learning.models.base` (base model) → here → `learning.training.loop`, and back as
`common.protocol.tensors`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.errors import ModelError
from common.protocol.adapter_form import is_frozen
from common.protocol.delivery import AdapterModules
from common.protocol.tasks import LoraSpec
from common.protocol.tensors import Tensors
from learning.models.held_weights import head_names

AdaptedModel = PeftModel | PreTrainedModel
"""A model with LoRA factors, or one that is trained as a whole."""


def attach(model: PreTrainedModel, settings: LoraSpec | None, seed: int) -> AdaptedModel:
    """Freeze a base model and attach a fresh adapter, the same one for the same seed.

    The base model is changed in place; with a fresh adapter it computes what it did before. Without
    settings all parameters are to be trained. A classifier's head is trained in either case.

    Raises:
        ModelError: No module has one of the target names, or the model has none of its kind.
    """
    if settings is None:
        return model.requires_grad_(True)
    targets = settings.targets if isinstance(settings.targets, str) else list(settings.targets)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        exclude_modules=_heads(model) if targets == "all-linear" else None,
        # SEQ_CLS adds the head.
        task_type="SEQ_CLS" if has_classification_head(model) else "CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),  # GPT-2's transposed W
    )
    # On the CPU whatever the model's device is: generators of devices give different numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            with warnings.catch_warnings():  # `learning.models.lora_targets` says what matters
                warnings.simplefilter("ignore", UserWarning)
                return get_peft_model(model, config)
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise ModelError(
                f"no adapter can be attached to this model: {reason}",
                "set model.lora.targets to names of its linear layers",
            ) from None


def has_classification_head(model: PreTrainedModel) -> bool:
    return type(model).__name__.endswith("ForSequenceClassification")


def _heads(model: PreTrainedModel) -> list[str] | None:
    """Return parts of a head that PEFT would both adapt and train whole, which it then refuses.

    It trains every module whose name ends as a head's does, such as DistilBERT's `pre_classifier`,
    but excludes from adaptation only those with exactly such a name.
    """
    return [name for name in head_names(model) if name not in SEQ_CLS_HEAD_NAMES] or None


def read_adapter(model: AdaptedModel) -> Tensors:
    """Return a copy of the adapter: float32 by name, in sorted order."""
    return {
        name: np.array(tensor.to("cpu", torch.float32).numpy(), order="C")
        for name, tensor in _trained_tensors(model).items()
    }


def write_adapter(model: AdaptedModel, tensors: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Copy an adapter, as `read_adapter` returned it, into a model; all of it or nothing.

    Raises:
        ModelError: A name is missing or unknown, or a shape differs.
    """
    own = _trained_tensors(model)
    remedy = "use an adapter of the same base model, rank and targets"
    if unmatched := sorted(own.keys() ^ tensors.keys()):
        kind = "lacks" if unmatched[0] in own else "has an unknown"
        raise ModelError(
            f"the adapter {kind} tensor {unmatched[0]} ({len(unmatched)} names differ)", remedy
        )
    for name, target in own.items():
        if tuple(target.shape) != tensors[name].shape:
            raise ModelError(
                f"adapter tensor {name} has shape {tensors[name].shape}, not {tuple(target.shape)}",
                remedy,
            )
    for name, target in own.items():
        target.copy_(torch.from_numpy(np.ascontiguousarray(tensors[name])))


def freeze_a(model: AdaptedModel, *, frozen: bool) -> None:
    """Exclude the factors A from training, or include them again.

    Source: FFA-LoRA (Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", ICLR
    2024).
    """
    for name, parameter in model.named_parameters():
        if is_frozen(name):
            parameter.requires_grad_(not frozen)


def adapter_config(model: AdaptedModel, base_name: str, revision: str | None) -> dict[str, Any]:
    """Return the content of `adapter_config.json`, the same for the same adapter.

    For a model that is trained as a whole, return that of its `config.json`. `base_name` is the hub
    id or path from which the base model is loaded again.
    """
    if not isinstance(model, PeftModel):
        return {name: _as_json(value) for name, value in sorted(model.config.to_dict().items())}
    fields = model.peft_config["default"].to_dict()
    fields |= {
        "base_model_name_or_path": base_name,
        "revision": revision,
        "inference_mode": True,
        "auto_mapping": None,
    }
    return {name: _as_json(fields[name]) for name in sorted(fields)}


def delivered_config(settings: LoraSpec, modules: AdapterModules) -> dict[str, Any]:
    """Return the content of `adapter_config.json` of an adapter that another machine describes."""
    config: Any = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(modules.target_modules),
        exclude_modules=list(modules.exclude_modules) or None,
        modules_to_save=list(modules.modules_to_save) or None,
        task_type=modules.task_type,
        fan_in_fan_out=modules.fan_in_fan_out,
        inference_mode=True,
    )
    fields = config.to_dict()
    return {name: _as_json(fields[name]) for name in sorted(fields)}


def _trained_tensors(model: AdaptedModel) -> dict[str, torch.Tensor]:
    """Return the trained tensors by PEFT's names, or the model's own; detached, not copied."""
    if not isinstance(model, PeftModel):
        return {name: own.detach() for name, own in sorted(model.named_parameters())}
    # Without the embedding check, which would ask the hub about the base model.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: state[name].detach() for name in sorted(state)}


def _as_json(value: object) -> Any:
    """Return a JSON value: sets as sorted lists, enumerations by value."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {str(k): _as_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(v) for v in value]
    return value
