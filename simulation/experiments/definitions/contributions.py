"""Experiment b: FCCL's weights against those of FedAvg, with noisy and with lying clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulation.experiments.experiment import Experiment
from simulation.grid.grid import Case

UPDATES = 100
BUFFER = 5
BUDGET: Mapping[str, Any] = {
    "schedule.buffer_size": BUFFER,
    "phase.0.versions": UPDATES // BUFFER,
    "phase.0.lr": 3e-3,
    "phase.0.lr_schedule": "cosine",
    "simulation.measure_every": 5,
}
NOISY: Mapping[str, Any] = {"simulation.faulty": 0.3, "simulation.faults": ["labels-swapped"]}
LYING: Mapping[str, Any] = {
    "simulation.faulty": 0.3,
    "simulation.faults": ["labels-swapped", "lie-loss"],
}
SOURCES = ("train", "holdout", "server", "cosine", "federated")


def weighting(name: str) -> Mapping[str, Any]:
    """Return the settings of `size` (FedAvg), `uniform`, or FCCL with a contribution source."""
    if name in ("size", "uniform"):
        return {"aggregation.contribution_mode": name}
    settings: dict[str, Any] = {"aggregation.contribution_source": name}
    if name == "holdout":
        settings["evaluation.budget"] = 0.15
    return settings


def _title(name: str) -> str:
    return {"size": "FedAvg", "uniform": "uniform"}.get(name, f"FCCL, {name}")


CLEAN = "FedAvg, all honest"
_CLEAN_CASES = [
    Case(CLEAN, {**BUDGET, **weighting("size")}),
    Case("FCCL, train, all honest", {**BUDGET, **weighting("train")}),
]
_NOISY_CASES = [
    Case(f"{_title(name)}, 30 % noisy", {**BUDGET, **NOISY, **weighting(name)})
    for name in ("size", "uniform", *SOURCES)
]
_LYING_CASES = [
    Case(f"{_title(name)}, 30 % lying", {**BUDGET, **LYING, **weighting(name)})
    for name in ("train", "holdout")
]
EXPERIMENTS = (
    Experiment(
        key="b",
        title="Contribution weights with noisy and lying clients",
        task="minilm",
        part="report",
        outcome="loss",
        question="How much of the improvement that FedAvg makes with honest clients is kept when"
        " 30 % of the clients have swapped labels, and when these also claim a loss near 0?",
        expected="FedAvg and uniform weights lose a good part, the same with both faults, because"
        " they read no loss. Training and holdout losses help a little against noise: swapped"
        " labels give a higher loss, but the clamp to [0.5, 2] times the median limits that."
        " Against liars they are worse than FedAvg. The sources that clients cannot inflate"
        " (server, federated, cosine) keep most; server keeps at least 95 %.",
        baseline=CLEAN,
        cases=[*_CLEAN_CASES, *_NOISY_CASES, *_LYING_CASES],
        note="Asynchronous, K = 5 of 10 tasks in flight, 100 updates, the same 20 clients as in"
        " experiment a; 6 of them are faulty. FCCL has its defaults (mode combined, log scale,"
        " T = 1, floor 0.1). Only the sources train and holdout read a loss that clients claim: for"
        " all other weights a lying client is a noisy one. The learning rate falls from 3e-3 to"
        " 3e-4 (cosine). *Kept* is the drop of the held-out loss, over the drop of FedAvg with"
        " honest clients in the same federation.",
    ),
)
