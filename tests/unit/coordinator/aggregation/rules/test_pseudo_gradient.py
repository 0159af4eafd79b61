"""Steps by server optimizers and robust rules, from weighted updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from common.config.config import AggregationConfig
from common.protocol.tensors import Array, Tensors
from coordinator.aggregation.rules.factor import FactorRule
from coordinator.aggregation.rules.ffa import FfaRule
from coordinator.aggregation.rules.pseudo_gradient import PseudoGradientRule
from coordinator.aggregation.rules.rule import Result, Step, WeightedUpdate


def one(value: float) -> Array:
    return np.array([value], np.float32)


def updates(*values: float, weights: tuple[float, ...] = ()) -> list[WeightedUpdate]:
    """Return updates of clients a, b, … that change the tensor B."""
    found = []
    for i, value in enumerate(values):

        def tensors(value: float = value) -> Iterator[tuple[str, Array]]:
            yield "B", one(value)

        weight = weights[i] if weights else 1 / len(values)
        found.append(WeightedUpdate(f"t{i}", "abcdef"[i], 0, weight, tensors, weight))
    return found


def apply(buffer: list[WeightedUpdate], state: Tensors | None = None, **settings: Any) -> Result:
    rule = PseudoGradientRule(FactorRule(), AggregationConfig.model_validate(settings))
    current = {"A": one(7), "B": one(100)}
    return rule.apply(Step(1, current, state or {}, buffer, lambda version: {}))


def moved(result: Result) -> float:
    assert result.tensors["A"] == one(7)  # no update has it
    return float(result.tensors["B"][0]) - 100


def robust(buffer: list[WeightedUpdate], rule: str, **settings: Any) -> Result:
    return apply(buffer, robust={"rule": rule, **settings})


def test_momentum_is_kept_as_state_between_steps() -> None:
    settings = {"optimizer": {"name": "momentum", "beta1": 0.5}, "server_lr": 2.0}
    first = apply(updates(1, 3), **settings)
    assert moved(first) == 2 * 2
    assert first.state == {"m/B": one(2)}
    assert moved(apply(updates(4, 4), first.state, **settings)) == 2 * (0.5 * 2 + 4)


def test_the_server_learning_rate_scales_a_robust_step_without_an_optimizer() -> None:
    assert moved(apply(updates(1, 3, 8), robust={"rule": "median"}, server_lr=0.5)) == 1.5


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("median", 3), ("trimmed-mean", (2 + 3 + 3) / 3), ("krum", 3)],
)
def test_rules_without_weights_count_every_update_the_same(rule: str, expected: float) -> None:
    weights = (0.9, 0.025, 0.025, 0.025, 0.025)
    assert moved(robust(updates(2, 3, 3, -900, 900, weights=weights), rule)) == pytest.approx(
        expected
    )


def test_multi_krum_and_the_cosine_filter_weigh_what_they_have_chosen() -> None:
    found = robust(updates(2, 2, 4, 4, 1000, weights=(0.3, 0.3, 0.1, 0.1, 0.2)), "multi-krum")
    assert moved(found) == pytest.approx((0.6 * 2 + 0.2 * 4) / 0.8, rel=1e-5)
    assert found.left_out == {"t4"}
    found = robust(updates(2, 2, 4, -1000, weights=(0.3, 0.3, 0.3, 0.1)), "cosine-filter")
    assert moved(found) == pytest.approx(8 / 3, rel=1e-5)
    assert found.left_out == {"t3"}


def test_nothing_moves_where_no_two_clients_agree() -> None:
    found = robust(updates(1, -1), "cosine-filter", threshold=0.5)
    assert (moved(found), found.left_out) == (0, {"t0", "t1"})


def test_centred_clipping_starts_from_the_aggregate_of_the_step_before() -> None:
    first = robust(updates(1, 3, 1000), "centered-clip", iterations=1)
    assert moved(first) == pytest.approx((1 + 3 + 3) / 3, rel=1e-5)
    assert first.state["center/B"] == pytest.approx(7 / 3)
    rule = {"rule": "centered-clip", "iterations": 1, "radius": 1.0}
    second = apply(updates(1000, 1000, 1000), first.state, robust=rule)
    assert moved(second) == pytest.approx(7 / 3 + 1, rel=1e-5)


def test_a_discounted_update_counts_less_in_every_rule() -> None:
    fresh, stale = updates(4, 4)
    halved = WeightedUpdate("t1", "b", 0, 0.25, stale.tensors, 0.5, scale=0.5)
    assert moved(robust([fresh, halved], "median")) == 3
    assert moved(robust([fresh, halved], "multi-krum", share=0.0)) == 3


def test_a_robust_aggregate_is_what_the_optimizer_gets() -> None:
    settings = {"optimizer": {"name": "adam", "beta1": 0.5, "tau": 1.0}, "server_lr": 0.1}
    found = apply(updates(1, 3, 1000), robust={"rule": "median"}, **settings)
    assert found.state["m/B"] == one(1.5)


def test_updates_of_rule_ffa_move_what_they_have() -> None:
    rule = PseudoGradientRule(FfaRule(), AggregationConfig.model_validate({"server_lr": 2.0}))
    names = ("x.lora_A.weight", "x.lora_B.weight")
    current = {name: np.zeros((1, 1), np.float32) for name in names}

    def tensors() -> Iterator[tuple[str, Array]]:
        yield names[1], np.ones((1, 1), np.float32)

    buffer = [WeightedUpdate("t0", "a", 0, 1.0, tensors)]
    found = rule.apply(Step(1, current, {}, buffer, lambda version: {}))
    assert [float(found.tensors[name].item()) for name in names] == [0, 2]
