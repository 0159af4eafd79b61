"""A plug-in rule of another package makes the versions of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.effect import check_effect
from common.config.loader import parse
from common.errors import ConfigError, RunError
from coordinator.aggregation.rules.plugin import PluginRule
from coordinator.aggregation.rules.registry import make_rule
from coordinator.aggregation.rules.rule import Result, Step, WeightedUpdate
from evaluation.verification.verify import verify
from tests.support.plugins import install_documented_plugins
from tests.support.witnessed_runs import witnessed_run


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_documented_plugins(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def step(*deltas: float) -> Step:
    updates = [
        WeightedUpdate(f"t{i}", "c", 0, 1.0, lambda d=d: iter([("B", np.array([d], np.float32))]))  # type: ignore[misc]
        for i, d in enumerate(deltas)
    ]
    return Step(1, {"B": np.zeros(1, np.float32)}, {}, updates, lambda version: {})


def test_the_documented_rule_moves_by_its_step_with_the_majority(installed: None) -> None:
    table = {"aggregation": {"rule": "sign-vote"}, "aggregators": {"sign-vote": {"step": 0.5}}}
    found = make_rule(parse(table, "test")).apply(step(-1, -2, 1000))
    assert found == Result({"B": np.array([-0.5], np.float32)})


def test_a_run_with_a_plug_in_rule_is_verified(installed: None, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = witnessed_run(tmp_path / "run", versions=(1,), aggregation={"rule": "sign-vote"})
    found = verify(run.run)
    assert found.right and found.complete


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"aggregation": {"rule": "vote"}}, "installed: sign-vote"),
        (
            {"aggregation": {"rule": "sign-vote"}, "aggregators": {"sign-vote": {"steps": 1}}},
            "unknown key aggregators.sign-vote.steps",
        ),
    ],
)
def test_a_rule_that_is_not_installed_and_unknown_options_are_refused(
    installed: None, table: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        make_rule(parse(table, "test"))


def test_options_of_another_rule_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"aggregation\.rule is factor"):
        check_effect(parse({"aggregators": {"sign-vote": {}}}, "test"))


class Faulty:
    """Rule that returns what a function makes of the step."""

    def __init__(self, apply: Callable[[Step], Any]) -> None:
        self.apply = apply

    def update_layout(self, layout: Any, client_id: str) -> Any:
        return layout


@pytest.mark.parametrize(
    "apply",
    [
        lambda step: 1 / 0,
        lambda step: None,
        lambda step: Result({}),
        lambda step: Result({"B": np.zeros((1, 1), np.float32)}),
        lambda step: Result({"B": np.zeros(1)}),
    ],
)
def test_a_rule_that_fails_or_returns_other_tensors_is_named(apply: Callable[[Step], Any]) -> None:
    with pytest.raises(RunError, match="the aggregation rule faulty"):
        PluginRule("faulty", Faulty(apply)).apply(step(1))
