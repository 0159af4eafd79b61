"""fccl's versions of the updates: its own rules, weights and staleness factors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.peers.shared import Arrays, ClientUpdate
from common.config import loader
from common.config.config import FederationConfig
from common.protocol.tensors import Array
from common.protocol.updates import ContributionStats
from coordinator.aggregation.contribution import contribution_weights
from coordinator.aggregation.rules.registry import make_rule
from coordinator.aggregation.rules.rule import Step, WeightedUpdate
from coordinator.aggregation.staleness import staleness_factor

ADAPTIVE_RATE = 0.003
FAULTY_SHARE = 0.2


def _optimizer(name: str, rate: float, **settings: float) -> dict[str, Any]:
    return {
        "contribution_mode": "size",
        "server_lr": rate,
        "optimizer": {"name": name, **settings},
        "staleness": "constant",
    }


def _robust(rule: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"rule": rule}
    if rule != "median":
        settings["share"] = FAULTY_SHARE
    return {"contribution_mode": "uniform", "robust": settings, "staleness": "constant"}


ALGORITHMS: dict[str, dict[str, Any]] = {
    "FedAvg by size": {"contribution_mode": "size", "staleness": "constant"},
    "FedAvg, equal weights": {"contribution_mode": "uniform", "staleness": "constant"},
    "FedAvgM": _optimizer("momentum", 1.0),
    "FedAdagrad, β₁ = 0": _optimizer("adagrad", ADAPTIVE_RATE, beta1=0.0),
    "FedAdam": _optimizer("adam", ADAPTIVE_RATE),
    "FedYogi": _optimizer("yogi", ADAPTIVE_RATE),
    "FedBuff, s = (1 + τ)^-0.5": {"contribution_mode": "uniform"},
    "FedAsync, s = (1 + τ)^-0.5": {"contribution_mode": "uniform", "server_lr": 0.9},
    "trimmed mean": _robust("trimmed-mean"),
    "median": _robust("median"),
    "Krum": _robust("krum"),
    "multi-Krum": _robust("multi-krum"),
}
"""[aggregation] of each algorithm; without floor and cap, which only fccl has."""


def versions(start: Arrays, rounds: list[list[ClientUpdate]]) -> dict[str, list[Arrays]]:
    """Return the versions that each algorithm makes of the updates."""
    found = {}
    for name, aggregation in ALGORITHMS.items():
        config = loader.parse(
            {"aggregation": {**aggregation, "floor": 0.0, "cap": 1e6}}, f"benchmark {name}"
        )
        steps = [[each] for own in rounds for each in own] if "Async" in name else rounds
        found[name] = _apply(config, start, steps, ages_from_rounds=steps is rounds)
    return found


def _apply(
    config: FederationConfig,
    start: Arrays,
    rounds: list[list[ClientUpdate]],
    *,
    ages_from_rounds: bool,
) -> list[Arrays]:
    rule, current, state, made = make_rule(config), start, dict[str, Array](), [start]
    for number, updates in enumerate(rounds):
        # Between single updates as many versions lie as there are updates in a round.
        ages = [u.staleness if ages_from_rounds else min(5 * u.staleness, number) for u in updates]
        weighted = _weighted(config, updates, ages)
        step = Step(number + 1, dict(current), state, weighted, lambda version: made[version])
        result = rule.apply(step)
        current, state = dict(result.tensors), dict(result.state)
        made.append(current)
    return made[1:]


def _weighted(
    config: FederationConfig, updates: list[ClientUpdate], ages: list[int]
) -> list[WeightedUpdate]:
    settings = config.aggregation
    weights = contribution_weights({u.client: _stats(u) for u in updates}, settings)
    rate = settings.server_lr if settings.optimizer.name == "none" else 1.0
    found = []
    for number, (update, age) in enumerate(zip(updates, ages, strict=True)):
        weight = weights[update.client][1] if len(updates) > 1 else 1.0
        scale = staleness_factor(age, settings.staleness_exponent, settings.staleness)
        read = partial(_each, update)
        found.append(
            WeightedUpdate(
                f"t{number}", update.client, 0, rate * weight * scale, read, weight, scale
            )
        )
    return found


def _each(update: ClientUpdate) -> Iterator[tuple[str, Array]]:
    yield from update.delta.items()


def _stats(update: ClientUpdate) -> ContributionStats:
    return _STATS.model_copy(update={"num_samples": update.rows})


_STATS = ContributionStats(
    num_samples=1,
    num_tokens=1,
    steps=1,
    avg_loss=1.0,
    loss_before=None,
    loss_after=None,
    train_seconds=0.0,
    delta_norm=1.0,
)
