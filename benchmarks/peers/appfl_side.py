"""APPFL's versions of the updates: `python appfl_side.py FOLDER`, in APPFL's environment.

Clients of synchronous algorithms hand over whole models. Those of asynchronous ones do, too, which
is APPFL's default ("models"), or hand over −Δ ("gradients").
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from appfl.algorithm.aggregator import (
    FedAdagradAggregator,
    FedAdamAggregator,
    FedAsyncAggregator,
    FedAvgAggregator,
    FedAvgMAggregator,
    FedBuffAggregator,
    FedYogiAggregator,
)
from omegaconf import DictConfig
from shared import Arrays, ClientUpdate, read_updates, write_versions

_SIZE = {"client_weights_mode": "sample_size"}
_ADAPTIVE = {
    "server_learning_rate": 0.003,
    "server_adapt_param": 1e-3,
    "server_momentum_param_1": 0.9,
    "server_momentum_param_2": 0.99,
    **_SIZE,
}
_STALENESS = {"staleness_fn": "polynomial", "staleness_fn_kwargs": {"a": 0.5}}
SYNCHRONOUS: dict[str, tuple[Any, dict[str, Any]]] = {
    "FedAvg by size": (FedAvgAggregator, _SIZE),
    "FedAvg, equal weights": (FedAvgAggregator, {}),
    "FedAvgM": (FedAvgMAggregator, {"server_momentum_param_1": 0.9, **_SIZE}),
    "FedAdagrad, β₁ = 0": (FedAdagradAggregator, {**_ADAPTIVE, "server_momentum_param_1": 0.0}),
    "FedAdam": (FedAdamAggregator, _ADAPTIVE),
    "FedYogi": (FedYogiAggregator, _ADAPTIVE),
}
BUFFERED = {"K": 5, "num_clients": 5, "alpha": 1.0, **_STALENESS}
IMMEDIATE = {"num_clients": 1, "alpha": 0.9, **_STALENESS}
Model = dict[str, torch.Tensor]


def tensors(arrays: Arrays) -> Model:
    """Return copies, because some aggregators change what they are given."""
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def arrays(model: Model) -> Arrays:
    """Return copies."""
    return {name: tensor.numpy().copy() for name, tensor in model.items()}


def synchronous(kind: Any, config: dict[str, Any], start: Arrays, rounds: Any) -> list[Arrays]:
    """Return the versions of a synchronous aggregator."""
    aggregator = kind(aggregator_configs=DictConfig({**config, "optimize_memory": False}))
    aggregator.global_state = tensors(start)
    current, made = start, []
    for updates in rounds:
        for update in updates:
            aggregator.set_client_sample_size(update.client, update.rows)
        models = {
            update.client: tensors({k: v + update.delta[k] for k, v in current.items()})
            for update in updates
        }
        current = arrays(aggregator.aggregate(models))
        made.append(current)
    return made


def asynchronous(
    kind: Any, config: dict[str, Any], start: Arrays, updates: list[ClientUpdate], *, every: int
) -> list[Arrays]:
    """Return the versions of an asynchronous aggregator, one after each `every` updates."""
    settings = {**config, "optimize_memory": False}
    aggregator = kind(aggregator_configs=DictConfig(settings))
    aggregator.global_state = tensors(start)
    made = [start]
    for number, update in enumerate(updates, 1):
        version = aggregator.global_step
        age = min(update.staleness * (5 if every == 1 else 1), version)
        aggregator.client_step[update.client] = version - age
        if config.get("gradient_based"):
            local = tensors({k: -v for k, v in update.delta.items()})
        else:
            base = made[version - age]
            local = tensors({k: v + update.delta[k] for k, v in base.items()})
        state = aggregator.aggregate(update.client, local)
        if number % every == 0:
            made.append(arrays(state))
    return made[1:]


def main() -> None:
    """Write `appfl.npz` into the folder."""
    folder = Path(sys.argv[1])
    start, rounds = read_updates(folder)
    found = {
        name: synchronous(kind, config, start, rounds)
        for name, (kind, config) in SYNCHRONOUS.items()
    }
    flat = [update for own in rounds for update in own]
    for title, more in (("gradients", {"gradient_based": True}), ("models", {})):
        found[f"FedBuff, s = (1 + τ)^-0.5, {title}"] = asynchronous(
            FedBuffAggregator, {**BUFFERED, **more}, start, flat, every=5
        )
        found[f"FedAsync, s = (1 + τ)^-0.5, {title}"] = asynchronous(
            FedAsyncAggregator, {**IMMEDIATE, **more}, start, flat, every=1
        )
    write_versions(folder / "appfl.npz", found)


if __name__ == "__main__":
    main()
