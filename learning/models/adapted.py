"""A base model with an adapter attached: loaded, held in the format of a run, ready to train.

In the data path: the worker's trainer and the evaluation get their model here. Next:
`learning.models.lora.write_adapter`, which writes a version's tensors into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from common.errors import ModelError
from common.protocol.fields import ObjectiveName
from common.protocol.tasks import LoraSpec
from learning.models import lora
from learning.models.lora import AdaptedModel
from learning.models.objective_model import load_for_objective
from learning.models.precision import FLOAT32, WeightFormat
from learning.models.shared_bases import load_shared


@dataclass(frozen=True)
class AdapterModel:
    """Model, its tokenizer, and how its frozen weights are held."""

    model: AdaptedModel
    tokenizer: PreTrainedTokenizerBase
    weights: WeightFormat = FLOAT32


def load_adapted(
    objective: ObjectiveName,
    path: Path,
    labels: Sequence[str],
    device: torch.device,
    settings: LoraSpec | None,
    weights: WeightFormat = FLOAT32,
    seed: int = 0,
) -> AdapterModel:
    """Load a base model and attach a fresh adapter, the same one for the same seed.

    Models with the same base share its frozen weights. Without `settings` all parameters are
    trained, which are then its own and float32.

    Raises:
        ModelError: The model cannot be loaded or held in this format, or takes no such adapter.
    """
    if settings is None:
        _check_trainable(weights)
        loaded = load_for_objective(objective, path, labels, device)
        weights = FLOAT32
    else:
        kind = (objective == "classification", tuple(labels), str(device), weights)
        load = partial(load_for_objective, objective, path, labels, device, weights)
        loaded = load_shared(path, kind, load)
    model = lora.attach(loaded.model, settings, seed)
    return AdapterModel(model, loaded.tokenizer, weights)


def _check_trainable(weights: WeightFormat) -> None:
    if weights.quantized:
        raise ModelError(
            f"{weights.quantization} weights cannot be trained, but this task trains all"
            " parameters",
            'use LoRA, or set model.quantization = "none"',
        )
