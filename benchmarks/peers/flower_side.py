"""Flower's versions of the updates: `python flower_side.py FOLDER`, in Flower's environment.

Its aggregation is called as its server does, with reply messages of clients that hold whole models.
Every algorithm goes on from its own version: a client's model is that version plus its Δ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
)
from flwr.serverapp.strategy.fedopt import FedOpt
from flwr.supercore.task_identity import TaskIdentity
from shared import Arrays, ClientUpdate, read_updates, write_versions

RATE = 0.003
STRATEGIES: dict[str, tuple[Any, bool]] = {
    "FedAvg by size": (FedAvg, True),
    "FedAvg, equal weights": (FedAvg, False),
    "FedAvgM": (lambda: FedAvgM(server_learning_rate=1.0, server_momentum=0.9), True),
    "FedAdagrad, β₁ = 0": (lambda: FedAdagrad(eta=RATE, tau=1e-3), True),
    "FedAdam": (lambda: FedAdam(eta=RATE, beta_1=0.9, beta_2=0.99, tau=1e-3), True),
    "FedYogi": (lambda: FedYogi(eta=RATE, beta_1=0.9, beta_2=0.99, tau=1e-3), True),
    "trimmed mean": (lambda: FedTrimmedAvg(beta=0.2), False),
    "median": (FedMedian, False),
    "Krum": (lambda: Krum(num_malicious_nodes=1), False),
    "multi-Krum": (
        lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=4),
        False,
    ),
}


BETA_1, BETA_2, TAU = 0.9, 0.99, 1e-3
AS_OURS = ("FedAdagrad, β₁ = 0", "FedAdam", "FedYogi")
"""Algorithms that are also run with fccl's beginning v = τ², and without bias correction."""


def as_ours(strategy: Any, number: int, start: Arrays) -> None:
    """Give an adaptive strategy the beginning that fccl has, and take its correction away."""
    if number == 1:
        strategy.v_t = {name: np.full_like(tensor, TAU**2) for name, tensor in start.items()}
    if isinstance(strategy, FedAdam):
        corrected = np.sqrt(1 - BETA_2 ** (number + 1)) / (1 - BETA_1 ** (number + 1))
        strategy.eta = RATE / corrected


def reply(current: Arrays, update: ClientUpdate, by_size: bool) -> Message:
    """Return the message of a client."""
    model = {name: Array(tensor + update.delta[name]) for name, tensor in current.items()}
    content = RecordDict(
        {
            "arrays": ArrayRecord(model),
            "metrics": MetricRecord({"num-examples": update.rows if by_size else 1}),
        }
    )
    return Message(content, dst_node_id=1, message_type="train")


def versions(
    strategy: Any, by_size: bool, start: Arrays, rounds: Any, *, ours: bool = False
) -> list[Arrays]:
    """Return the versions that one strategy makes."""
    current, made = start, []
    for number, updates in enumerate(rounds, 1):
        if ours:
            as_ours(strategy, number, start)
        # As its `configure_train` does, which needs a server.
        if isinstance(strategy, FedOpt):
            strategy.current_arrays = dict(current)
        else:
            strategy.current_arrays = ArrayRecord({k: Array(v) for k, v in current.items()})
        arrays, _ = strategy.aggregate_train(
            number, [reply(current, update, by_size) for update in updates]
        )
        current = {name: np.asarray(array.numpy(), np.float32) for name, array in arrays.items()}
        made.append(current)
    return made


def main() -> None:
    """Write `flower.npz` into the folder."""
    folder = Path(sys.argv[1])
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # as its server does
    start, rounds = read_updates(folder)
    found = {
        name: versions(make(), by_size, start, rounds)
        for name, (make, by_size) in STRATEGIES.items()
    }
    for name in AS_OURS:
        make, by_size = STRATEGIES[name]
        found[f"{name}, as ours"] = versions(make(), by_size, start, rounds, ours=True)
    write_versions(folder / "flower.npz", found)


if __name__ == "__main__":
    main()
