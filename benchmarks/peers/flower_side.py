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
from shared import Arrays, ClientUpdate, read_updates, write_versions

RATE = 0.003
STRATEGIES: dict[str, tuple[Any, bool]] = {
    "FedAvg by size": (FedAvg, True),
    "FedAvg, equal weights": (FedAvg, False),
    "FedAvgM": (lambda: FedAvgM(server_learning_rate=1.0, server_momentum=0.9), True),
    "FedAdagrad": (lambda: FedAdagrad(eta=RATE, beta_1=0.9, tau=1e-3), True),
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


def versions(strategy: Any, by_size: bool, start: Arrays, rounds: Any) -> list[Arrays]:
    """Return the versions that one strategy makes."""
    current, made = start, []
    for number, updates in enumerate(rounds, 1):
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
    start, rounds = read_updates(folder)
    found = {
        name: versions(make(), by_size, start, rounds)
        for name, (make, by_size) in STRATEGIES.items()
    }
    write_versions(folder / "flower.npz", found)


if __name__ == "__main__":
    main()
