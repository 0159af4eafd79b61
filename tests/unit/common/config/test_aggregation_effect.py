"""Settings of [aggregation] that contradict each other or do nothing are refused at the start."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import loader
from common.config.effect import check_effect
from common.errors import ConfigError


def refusal(aggregation: dict[str, Any], **schedule: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        accept(aggregation, **schedule)
    assert caught.value.remedy
    return caught.value


def accept(aggregation: dict[str, Any], **schedule: Any) -> None:
    table = {"aggregation": aggregation, "schedule": {"concurrency": 20, **schedule}}
    check_effect(loader.parse(table, "test"))


@pytest.mark.parametrize(
    "setting",
    [{"optimizer": {"name": "momentum"}}, {"robust": {"rule": "median"}}, {"cache_updates": True}],
)
def test_a_plug_in_rule_makes_the_whole_step(setting: dict[str, Any]) -> None:
    assert "cannot be combined" in refusal({"rule": "sign-vote", **setting}).what
    accept({"rule": "factor", **setting})


def test_a_cache_would_apply_what_a_robust_rule_leaves_out() -> None:
    both = {"cache_updates": True, "robust": {"rule": "krum"}}
    assert "has left out" in refusal(both).what


@pytest.mark.parametrize("name", ["adagrad", "adam", "yogi"])
def test_an_adaptive_optimizer_needs_a_small_learning_rate(name: str) -> None:
    found = refusal({"optimizer": {"name": name}})
    assert "far too large" in found.what and "1e-3" in found.remedy
    accept({"optimizer": {"name": name}, "server_lr": 1e-3})


@pytest.mark.parametrize(
    "setting",
    [
        {"optimizer": {"beta1": 0.5}},
        {"optimizer": {"name": "momentum", "beta2": 0.5}},
        {"optimizer": {"name": "momentum", "tau": 0.1}},
        {"optimizer": {"name": "adagrad", "beta2": 0.5}, "server_lr": 1e-3},
        {"robust": {"share": 0.3}},
        {"robust": {"rule": "median", "share": 0.3}},
        {"robust": {"rule": "krum", "threshold": 0.1}},
        {"robust": {"rule": "cosine-filter", "radius": 1.0}},
        {"robust": {"rule": "median", "iterations": 1}},
        {"staleness_threshold": 2},
        {"staleness": "constant", "staleness_exponent": 0.1},
        {"cache_updates": True, "staleness": "constant"},
        {"cache_updates": True, "contribution_mode": "size"},
        {"robust": {"rule": "median"}, "temperature": 2.0},
        {"robust": {"rule": "krum"}, "contribution_source": "server"},
        {"contribution_mode": "uniform", "cap": 2.0},
    ],
)
def test_settings_without_an_effect_are_refused(setting: dict[str, Any]) -> None:
    assert "has no effect" in refusal(setting).what


@pytest.mark.parametrize(
    "setting",
    [
        {"staleness": "hinge", "staleness_threshold": 2, "staleness_exponent": 10.0},
        {"optimizer": {"name": "yogi", "beta1": 0.5, "beta2": 0.5, "tau": 0.1}, "server_lr": 1e-3},
        {"robust": {"rule": "multi-krum", "share": 0.3}, "contribution_mode": "loss"},
        {"robust": {"rule": "centered-clip", "radius": 1.0, "iterations": 1}, "temperature": 2.0},
        {"robust": {"rule": "median"}, "contribution_mode": "uniform"},
        {"robust": {"rule": "median"}, "optimizer": {"name": "momentum"}},
        {"cache_updates": True, "optimizer": {"name": "momentum"}},
    ],
)
def test_settings_that_belong_together_are_accepted(setting: dict[str, Any]) -> None:
    accept(setting)


def test_a_robust_rule_needs_enough_updates_in_a_version() -> None:
    assert "majority" in refusal({"robust": {"rule": "median"}}, buffer_size=2).what
    trimmed = {"robust": {"rule": "trimmed-mean"}}
    assert "leaves out nothing" in refusal(trimmed, buffer_size=4).what
    accept(trimmed, buffer_size=5)
    krum = {"robust": {"rule": "krum", "share": 0.4}}  # f = 3 of 8
    assert "2f + 3 = 9" in refusal(krum, buffer_size=8).what
    accept(krum, buffer_size=9)


def test_a_quorum_above_the_number_of_clients_can_never_be_met() -> None:
    found = refusal({}, reissue="commit", quorum=5)
    assert "can never be met" in found.what and "4 or less" in found.remedy
    accept({}, reissue="commit", quorum=4)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    assert "temperature" in refusal({"temperature": temperature}).what


def test_a_round_never_fills_with_a_buffer_above_the_concurrency() -> None:
    assert "never fills" in refusal({}, reissue="commit", buffer_size=21).what
