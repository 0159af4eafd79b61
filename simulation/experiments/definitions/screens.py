"""Experiments c to h: one seed each, on the tuning half, to see what deserves five."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulation.experiments.definitions.contributions import BUDGET, NOISY
from simulation.experiments.experiment import SCREENING, Experiment
from simulation.grid.grid import Case

_CLIENTS = 20
_UNIFORM: Mapping[str, Any] = {"aggregation.contribution_mode": "uniform"}
_SIZE: Mapping[str, Any] = {"aggregation.contribution_mode": "size"}
_BY_TEN: Mapping[str, Any] = {
    "schedule.buffer_size": 10,
    "schedule.concurrency": 20,
    "phase.0.versions": 12,
    "simulation.measure_every": 2,
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
        note=note,
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


def _staleness(name: str, concurrency: int) -> Case:
    settings = {
        **BUDGET,
        **_SIZE,
        "schedule.buffer_size": 2,
        "schedule.concurrency": concurrency,
        "phase.0.versions": 60,
        "simulation.measure_every": 10,
        "aggregation.staleness": name,
    }
    return Case(f"{name}, {concurrency} tasks in flight", settings)


def _scale(scale: str, temperature: float) -> Case:
    settings = {
        **BUDGET,
        **NOISY,
        "aggregation.score_scale": scale,
        "aggregation.temperature": temperature,
    }
    return Case(f"{scale}, T = {temperature:g}", settings)


_ROBUST = (
    "none",
    "cosine-filter",
    "trimmed-mean",
    "median",
    "krum",
    "multi-krum",
    "centered-clip",
)
_ATTACKS: Mapping[str, Mapping[str, Any]] = {
    "honest": {},
    **{
        name: {
            "simulation.faulty": 0.2,
            "simulation.faults": [name],
            "simulation.fault_scale": scale,
        }
        for name, scale in (("sign-flip", 3.0), ("noise", 3.0), ("collude", 3.0))
    },
}


def _robust(rule: str, attack: str) -> Case:
    settings: dict[str, Any] = {**_BY_TEN, **_UNIFORM, **_ATTACKS[attack]}
    if rule != "none":
        settings["aggregation.robust.rule"] = rule
    return Case(f"{rule}, {attack}", settings)


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
        "phase.0.versions": 8,
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
            _rank("factor", 16),
            _rank("ffa", 8),
            _rank("ffa", 16),
            _rank("product", 8),
            _rank("product", 16),
            _rank("product", 16, mixed=True),
        ],
        "`factor` and `ffa` need one rank for all; the alternative to mixed ranks is the smallest"
        " client's rank, 4.",
    ),
    _screen(
        "d",
        "Staleness functions and concurrency",
        "Which staleness function is best, with updates that are about 2, 5 and 10 versions old?",
        "Without a discount the loss is worse at 20 tasks in flight and no different at 4. The"
        " polynomial is safe everywhere; hinge and exponential discount so much at 20 that progress"
        " slows.",
        [
            _staleness(name, concurrency)
            for concurrency in (4, 10, 20)
            for name in ("polynomial", "constant", "hinge", "exponential")
        ],
        "K = 2, 120 updates; staleness is on average the number of tasks in flight, over K.",
    ),
    _screen(
        "e",
        "Scale and temperature of the scores",
        "Which scale and temperature of the softmax is best, when 30 % of the clients are noisy?",
        "Raw scores n/ℓ of about 200 give winner takes all, which is worse than FedAvg; raw with a"
        " large temperature and log at T = 1 are similar. A lower temperature helps a little"
        " against noise.",
        [
            _scale("log", 1.0),
            _scale("log", 0.5),
            _scale("log", 2.0),
            _scale("raw", 1.0),
            _scale("raw", 10.0),
            _scale("raw", 100.0),
        ],
        "Source train, mode combined.",
    ),
    _screen(
        "f",
        "Robust rules under attack",
        "What does each robust rule keep when 20 % of the clients flip the sign of their updates,"
        " send noise, or collude, and what does it cost when all are honest?",
        "The norm clip alone bounds each attacker to the weight of one honest client, so noise is"
        " harmless and sign flips with threefold norm cost some progress. Multi-Krum, trimmed mean"
        " and centred clipping stop all three attacks. Krum and median cost most with honest"
        " clients, because they use one update's worth of information from skewed clients.",
        [_robust(rule, attack) for attack in _ATTACKS for rule in _ROBUST],
        "K = 10, 20 tasks in flight, uniform weights. Attackers send three times the norm of an"
        " honest update; the norm clip (1.5 × the running median) is on in all cases.",
    ),
    _screen(
        "g",
        "Server optimizers",
        "Does momentum or an adaptive optimizer on the server help?",
        "Momentum helps a little where the plain step is too cautious; adaptive optimizers at"
        " η = 3e-3 are as good as the plain mean, and at 1e-2 unstable.",
        [
            _optimizer("none", 1.0),
            _optimizer("none", 0.5),
            _optimizer("momentum", 0.3),
            _optimizer("momentum", 1.0),
            _optimizer("adagrad", 3e-3),
            _optimizer("adam", 1e-3),
            _optimizer("adam", 3e-3),
            _optimizer("yogi", 1e-3),
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
        [
            _private(rule, noise)
            for noise in (None, 0.02, 0.05, 0.1, 0.5)
            for rule in ("factor", "ffa")
        ],
        "K = 20, 8 versions (160 updates), r = 4, clip norm 0.5, δ = 1e-5. Each client takes"
        " part in each version at most once.",
    ),
)
