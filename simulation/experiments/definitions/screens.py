"""Experiments c, g and h: one seed each, on the tuning half, to see what deserves five."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulation.experiments.experiment import SCREENING, Experiment
from simulation.grid.grid import Case

_CLIENTS = 20
BUDGET: Mapping[str, Any] = {
    "schedule.buffer_size": 5,
    "phase.0.versions": 16,
    "phase.0.lr": 3e-3,
    "phase.0.lr_schedule": "cosine",
    "simulation.measure_every": 5,
}
"""80 updates, fewer than in experiment b: a screening sees large differences only."""
_UNIFORM: Mapping[str, Any] = {"aggregation.contribution_mode": "uniform"}
_SIZE: Mapping[str, Any] = {"aggregation.contribution_mode": "size"}
_BY_TEN: Mapping[str, Any] = {
    "schedule.buffer_size": 10,
    "schedule.concurrency": 20,
    "phase.0.versions": 8,
    "phase.0.lr": 3e-3,
    "phase.0.lr_schedule": "cosine",
    "simulation.measure_every": 3,
}


def _screen(
    key: str, title: str, question: str, expected: str, cases: Sequence[Case], note: str = ""
) -> Experiment:
    return Experiment(
        key=key,
        title=title,
        task="minilm",
        part="tune",
        outcome="loss",
        question=question,
        expected=expected,
        baseline=cases[0].name,
        cases=cases,
        seeds=SCREENING,
        note=f"{note} 80 updates, learning rate from 3e-3 to 3e-4 (cosine), one seed: differences"
        " below about 0.05 nats are noise.",
    )


def _rank(rule: str, rank: int, mixed: bool = False) -> Case:
    settings = {
        **BUDGET,
        **_SIZE,
        "aggregation.rule": rule,
        "model.lora.r": rank,
        "model.lora.alpha": 2 * rank,
    }
    if mixed:
        settings["model.ranks"] = {f"client_{i}": (4, 8, 16)[i % 3] for i in range(_CLIENTS)}
    return Case(f"{rule}, ranks 4/8/16" if mixed else f"{rule}, r = {rank}", settings)


def _optimizer(name: str, rate: float) -> Case:
    settings = {**BUDGET, **_SIZE, "aggregation.server_lr": rate}
    if name != "none":
        settings["aggregation.optimizer.name"] = name
    return Case(f"{name}, η = {rate:g}", settings)


def _private(rule: str, noise: float | None) -> Case:
    settings: dict[str, Any] = {
        **_BY_TEN,
        **_UNIFORM,
        "schedule.buffer_size": 20,
        "phase.0.versions": 4,
        "simulation.measure_every": 2,
        "aggregation.rule": rule,
        "model.lora.r": 4,
        "model.lora.alpha": 8,
        "privacy.clip_norm": 0.5,
        "privacy.noise_multiplier": noise or 0.0,
    }
    return Case(f"{rule}, z = {noise:g}" if noise else f"{rule}, clipping only", settings)


EXPERIMENTS = (
    _screen(
        "c",
        "Aggregation rules and ranks",
        "Do `ffa` and `product` change the result at equal ranks, and what do mixed ranks cost?",
        "At equal ranks all three are within noise, as three public checks found. Mixed ranks with"
        " `product` lie between r = 4 and r = 16, and cost little.",
        [
            _rank("factor", 8),
            _rank("factor", 4),
            _rank("ffa", 8),
            _rank("product", 8),
            _rank("product", 16, mixed=True),
        ],
        "`factor` and `ffa` need one rank for all; the alternative to mixed ranks is the smallest"
        " client's rank, 4.",
    ),
    _screen(
        "g",
        "Server optimizers",
        "Does momentum or an adaptive optimizer on the server help?",
        "Momentum helps a little where the plain step is too cautious; adaptive optimizers at"
        " η = 3e-3 are as good as the plain mean, and at 1e-2 unstable.",
        [
            _optimizer("none", 1.0),
            _optimizer("momentum", 0.3),
            _optimizer("adagrad", 3e-3),
            _optimizer("adam", 1e-3),
            _optimizer("adam", 3e-3),
            _optimizer("yogi", 3e-3),
        ],
    ),
    _screen(
        "h",
        "Differential privacy",
        "What does client-level noise cost, for `factor` and for `ffa`?",
        "With 20 clients no useful ε is possible: at z = 1 the noise is far larger than the mean"
        " update, and the model stays at chance. `ffa` sends half the values and stands about 1.4"
        " times the noise. Small z shows where learning begins, at an ε that promises nothing.",
        [_private(rule, noise) for noise in (None, 0.1, 0.5) for rule in ("factor", "ffa")],
        "K = 20, 4 versions (80 updates), r = 4, clip norm 0.5, δ = 1e-5. Each client takes"
        " part in each version at most once.",
    ),
)
