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

HEAD_SEED = 0
"""Seed of weights that a checkpoint lacks (a head, a pooler): every side must draw the same."""


def family_for_objective(objective: ObjectiveName) -> Family:
    return "encoder" if objective == "classification" else "causal"


def load_for_objective(
    objective: ObjectiveName, path: Path, labels: Sequence[str], device: torch.device
) -> LoadedModel:
    """Load a base model for an objective, in float32 and evaluation mode.

    Args:
        labels: Class names of `classification`.

    Raises:
        ModelError: The files are not such a model with a tokenizer.
    """
    if objective == "classification":
        return load_encoder(path, labels, device, HEAD_SEED)
    return load(path, device)
