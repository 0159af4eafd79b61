"""Noise of differential privacy: its size, its place in the step, and the sensitivity it hides."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from common.config.config import FederationConfig, PrivacyConfig
from common.config.loader import parse
from common.errors import RunError
from common.protocol.tensors import Tensors
from coordinator.aggregation.coefficients import compute_parts
from coordinator.aggregation.noise import reproducible_seeds, secret_seed
from coordinator.aggregation.rules.factor import FactorRule
from coordinator.aggregation.rules.private import PrivateRule
from coordinator.aggregation.rules.registry import make_rule
from coordinator.aggregation.rules.rule import Step, WeightedUpdate
from coordinator.core import admission
from coordinator.core.state import BufferedUpdate, ClientState, CoordinatorState, OpenTask, Plan
from tests.support.virtual_federation import make_plan, make_stats, make_update

SEED = reproducible_seeds(0)(1)
TASK = OpenTask("t1", "c0", 0, 1, (0,), 0.0, 60.0)
C, K = 0.5, 4


def config(**sections: object) -> FederationConfig:
    private = {"privacy": {"clip_norm": C, "noise_multiplier": 2.0}}
    return parse({"schedule": {"buffer_size": K}, **private, **sections}, "test")


def update(client: str, coefficient: float, *values: float) -> WeightedUpdate:
    tensor = np.array(values, np.float32)
    return WeightedUpdate(f"t-{client}", client, 0, coefficient, lambda: iter([("a", tensor)]))


def step(*updates: WeightedUpdate, size: int = 2) -> Step:
    return Step(1, {"a": np.zeros(size, np.float32)}, {}, updates, lambda _: {}, SEED)


def zeros(size: int) -> WeightedUpdate:
    return update("c", 1.0, *[0.0] * size)


# noise


def test_the_noise_of_every_value_has_the_deviation_z_c_by_k() -> None:
    made = make_rule(config()).apply(step(zeros(100_000), size=100_000)).tensors["a"]
    # 2 · 0.5 / 4; the estimate of a deviation from n values is off by about 1/√(2n).
    assert made.std() == pytest.approx(0.25, rel=0.01)
    assert abs(made.mean()) < 0.003
    assert made.dtype == np.float32


def test_the_server_learning_rate_scales_noise_and_updates_alike() -> None:
    slow = make_rule(config(aggregation={"server_lr": 0.1})).apply(step(zeros(2))).tensors["a"]
    fast = make_rule(config()).apply(step(zeros(2))).tensors["a"]
    assert slow == pytest.approx(0.1 * fast)


def test_noise_joins_before_a_server_optimizer_whose_step_is_post_processing() -> None:
    optimizer = {"optimizer": {"name": "momentum", "beta1": 0.0}, "server_lr": 0.1}
    plain = make_rule(config()).apply(step(update("c", 0.25, 1.0, 2.0))).tensors["a"]
    made = make_rule(config(aggregation=optimizer)).apply(step(update("c", 0.25, 1.0, 2.0)))
    assert made.tensors["a"] == pytest.approx(0.1 * plain)
    assert made.left_out == frozenset()


def test_updates_are_added_to_the_noise() -> None:
    rule = make_rule(config())
    noise = rule.apply(step(zeros(2))).tensors["a"]
    made = rule.apply(step(update("c", 0.25, 1.0, 0.0), update("d", 0.25, 0.0, 2.0))).tensors["a"]
    assert made - noise == pytest.approx([0.25, 0.5], abs=1e-6)


def test_ffa_adds_noise_to_what_travels_alone() -> None:
    rule = make_rule(config(aggregation={"rule": "ffa"}))
    names = ("base.x.lora_A.weight", "base.x.lora_B.weight")
    current = {name: np.ones((2, 2), np.float32) for name in names}
    sent = replace(zeros(1), tensors=lambda: iter([(names[1], np.zeros((2, 2), np.float32))]))
    made = rule.apply(replace(step(sent), current=dict(current))).tensors
    assert (made[names[0]] == 1).all() and (made[names[1]] != 1).all()


def test_two_updates_of_one_client_are_refused() -> None:
    with pytest.raises(RunError, match="two updates of one client"):
        make_rule(config()).apply(step(zeros(2), zeros(2)))


def test_without_clip_norm_nothing_is_added() -> None:
    assert isinstance(make_rule(FederationConfig()), FactorRule)


def test_seeds_of_live_runs_are_fresh_and_those_of_simulations_follow_from_the_seed() -> None:
    assert secret_seed(1) != secret_seed(1)
    assert reproducible_seeds(7)(1) == reproducible_seeds(7)(1) != reproducible_seeds(7)(2)
    assert reproducible_seeds(8)(1) != reproducible_seeds(7)(1)


# sensitivity


def private_plan() -> Plan:
    plan = make_plan(8, buffer_size=K, concurrency=K)
    return replace(plan, privacy=PrivacyConfig(clip_norm=C))


def buffer(*norms: float, version: int = 5) -> CoordinatorState:
    """Return a state with an update of each norm, of different staleness, as admission clips it."""
    plan, participation, updates = private_plan(), {}, []
    for i, norm in enumerate(norms):
        limit = admission.clip_limit((), plan.aggregation, plan.privacy)
        assert limit is not None
        clip = admission.clip_factor(norm, limit)
        name = f"c{i}"
        updates.append(BufferedUpdate(f"t{i}", 1, name, "w", i, make_stats(), clip, 1, f"u{i}"))
        participation[name] = ClientState(participation=i)
    return CoordinatorState(version, {}, tuple(updates), MappingProxyType(participation))


def sum_of(state: CoordinatorState, deltas: dict[str, Tensors]) -> np.ndarray:
    """Return the step without noise."""
    parts = compute_parts(private_plan(), state)
    updates = [
        WeightedUpdate(
            *(p.update.task_id, p.update.client_id, p.update.base_version, p.coefficient),
            tensors=lambda p=p: iter(deltas[p.update.client_id].items()),  # type: ignore[misc]
        )
        for p in parts
    ]
    current = {"a": np.zeros(50, np.float32), "b": np.zeros((3, 4), np.float32)}
    rule = PrivateRule(FactorRule(), deviation=0.0)
    made = rule.apply(Step(6, current, {}, updates, lambda _: {}, SEED)).tensors
    return np.concatenate([made[name].ravel().astype(np.float64) for name in ("a", "b")])


def random_delta(rng: np.random.Generator, norm: float) -> Tensors:
    values = rng.normal(size=62)
    values *= norm / np.linalg.norm(values)
    a, b = values[:50].astype(np.float32), values[50:].astype(np.float32).reshape(3, 4)
    return {"a": a, "b": b}


@pytest.mark.parametrize("norms", [(0.1, 0.5, 3.0, 1e4), (1e-3, 9.0), (7.0,), (0.5,) * 4])
def test_without_one_clients_update_the_step_differs_by_at_most_c_by_k(
    norms: tuple[float, ...],
) -> None:
    rng = np.random.default_rng(0)
    deltas = {f"c{i}": random_delta(rng, norm) for i, norm in enumerate(norms)}
    state = buffer(*norms)
    whole = sum_of(state, deltas)
    for client in deltas:
        left = tuple(u for u in state.buffer if u.client_id != client)
        rest = sum_of(replace(state, buffer=left), deltas) if left else np.zeros(62)
        assert np.linalg.norm(whole - rest) <= C / K * (1 + 1e-6)


def test_the_newest_update_of_a_full_norm_reaches_the_bound() -> None:
    state = buffer(3.0, version=0)
    delta = random_delta(np.random.default_rng(1), 3.0)
    assert np.linalg.norm(sum_of(state, {"c0": delta})) == pytest.approx(C / K, rel=1e-6)


def test_weights_depend_on_neither_claims_nor_the_number_of_updates() -> None:
    for count in (1, 3):
        parts = compute_parts(private_plan(), buffer(*[1.0] * count))
        assert {part.weight for part in parts} == {1 / K}
        assert {part.participation_factor for part in parts} == {1.0}


def test_an_update_over_the_norm_is_clipped_whatever_others_sent() -> None:
    plan = private_plan()
    state = replace(CoordinatorState(), norms=(1e-3,) * 50)
    decision = admission._bound_norm(plan, state, make_update(TASK, norm=2.0))
    assert decision.rejection is None and decision.clip == pytest.approx(C / 2)
