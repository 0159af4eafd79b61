"""Comparison of a pruned encoder with its source in size, speed and quality.

In the data path: the last step of `fccl prune`; nothing depends on these figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import PreTrainedModel

from learning.pruning.importance import EncoderInputs, positions
from learning.pruning.layout import head_size, layers_of, layout_of, linear

TEXTS, TOKENS = 8, 64
"""Shape of the batch with which speed is measured."""
_ROUNDS = 9
_MIN_TEXTS = 60  # of a probe; a third of them test it
_STRENGTH = 0.01  # inverse of the probe's penalty: as many weights as texts would fit anything


@dataclass(frozen=True)
class EncoderSize:
    """Size of an encoder."""

    parameters: int  # embeddings and head included
    megabytes: float  # of the weights on disk, 10⁶ bytes
    layers: int
    heads: tuple[int, ...]  # attention heads of each layer
    ffn: int  # feed-forward units per layer


def measure_size(model: PreTrainedModel, path: Path) -> EncoderSize:
    """Return the size of a model that was loaded from this directory."""
    layout, width = layout_of(model.config), head_size(model.config)
    stack = layers_of(model)
    return EncoderSize(
        parameters=int(model.num_parameters()),
        megabytes=sum(file.stat().st_size for file in path.glob("*.safetensors")) / 1e6,
        layers=len(stack),
        heads=tuple(linear(layer, layout.joined).in_features // width for layer in stack),
        ffn=linear(stack[0], layout.up).out_features,
    )


@torch.inference_mode()
def time_batches(models: Sequence[PreTrainedModel], threads: int) -> list[float]:
    """Return each model's milliseconds per batch, dense and in float32: its fastest turn.

    The models take turns. Other load on the machine only ever slows a turn, and a long one more
    than a short one: by medians, a model 2.8 times as fast was 6 to 9 times as fast on a busy
    machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = min(int(model.config.vocab_size) for model in models)
    tokens = min(TOKENS, *(positions(model) for model in models))
    batch = torch.arange(TEXTS * tokens).reshape(TEXTS, tokens) % rows
    mask = torch.ones_like(batch)
    times: list[list[float]] = [[] for _ in models]
    try:
        for _ in range(_ROUNDS + 2):  # the first two warm up
            for model, taken in zip(models, times, strict=True):
                start = time.perf_counter()
                model.base_model(input_ids=batch, attention_mask=mask)
                taken.append(1e3 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(before)
    return [min(taken[2:]) for taken in times]


@torch.no_grad()
def pooled_states(model: PreTrainedModel, data: Sequence[EncoderInputs]) -> Tensor:
    """Return the mean of the last hidden states over each text's tokens: (texts, H)."""
    means = []
    for batch in data:
        weights = batch["attention_mask"].unsqueeze(2).float()  # (B, T, 1)
        states = model.base_model(**batch)[0]
        means.append((states * weights).sum(1) / weights.sum(1))
    return torch.cat(means)


def mean_cosine(states: Tensor, source: Tensor) -> float:
    """Return the mean cosine similarity of two models' representations of the same texts."""
    return float(torch.cosine_similarity(states, source, dim=1).mean())


def probe_accuracy(states: Tensor, labels: Sequence[str]) -> float | None:
    """Return the accuracy of a logistic regression from pooled states to labels.

    It is trained on the first two thirds of the texts and tested on the rest. None if there are too
    few texts, or only one class in either part.
    """
    cut = 2 * len(labels) // 3
    if len(labels) < _MIN_TEXTS or min(len(set(labels[:cut])), len(set(labels[cut:]))) < 2:
        return None
    inputs, targets = states.numpy(), np.array(labels)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=_STRENGTH, max_iter=1000))
    return float(model.fit(inputs[:cut], targets[:cut]).score(inputs[cut:], targets[cut:]))
