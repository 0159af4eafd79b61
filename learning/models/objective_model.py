"""The model that an objective trains: a causal one, or an encoder with a head for the classes.

In the data path: `learning.models.base` (a directory) → here → `learning.models.lora.attach`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from common.protocol.fields import ObjectiveName
from learning.models.encoders import load_encoder
from learning.models.families import Family
from learning.models.loader import LoadedModel, load
from learning.models.precision import FLOAT32, WeightFormat
from learning.models.quantized import check_quantizable

HEAD_SEED = 0
"""Seed of weights that a checkpoint lacks (a head, a pooler): every side must draw the same."""


def family_for_objective(objective: ObjectiveName) -> Family:
    return "encoder" if objective == "classification" else "causal"


def load_for_objective(
    objective: ObjectiveName,
    path: Path,
    labels: Sequence[str],
    device: torch.device,
    weights: WeightFormat = FLOAT32,
) -> LoadedModel:
    """Load a base model for an objective, in evaluation mode.

    Args:
        labels: Class names of `classification`.
        weights: Format of its weights. Only those of float32 can be trained.

    Raises:
        ModelError: The files are not such a model with a tokenizer, or it cannot be held in this
            format on this machine.
    """
    check_quantizable(path, weights)
    if objective == "classification":
        return load_encoder(path, labels, device, HEAD_SEED, weights)
    return load(path, device, weights)
