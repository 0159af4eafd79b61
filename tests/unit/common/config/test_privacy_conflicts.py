"""Settings that contradict differential privacy are refused before a run starts."""

from __future__ import annotations

from typing import Any

import pytest

from common.config.effect import check_effect
from common.config.loader import parse
from common.errors import ConfigError

PRIVATE: dict[str, dict[str, Any]] = {
    "data": {"clients": 8},
    "schedule": {"concurrency": 4, "buffer_size": 4},
    "aggregation": {"contribution_mode": "uniform"},
    "privacy": {"clip_norm": 1.0},
}


def with_settings(**changed: dict[str, Any]) -> dict[str, Any]:
    sections = PRIVATE.keys() | changed.keys()
    return {name: PRIVATE.get(name, {}) | changed.get(name, {}) for name in sections}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"aggregation": {"rule": "ffa"}},
        {"aggregation": {"optimizer": {"name": "adam"}, "server_lr": 1e-3}},
        {"privacy": {"max_versions": 8}},
        {"data": {"clients": 0}, "privacy": {"max_versions": 1}},
    ],
)
def test_what_goes_together_is_accepted(changed: dict[str, dict[str, Any]]) -> None:
    check_effect(parse(with_settings(**changed), "test"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"aggregation": {"contribution_mode": "combined"}}, "equal weights"),
        ({"aggregation": {"rule": "product"}}, "no sum"),
        ({"aggregation": {"robust": {"rule": "median"}}}, "private values"),
        ({"aggregation": {"cache_updates": True}}, "several versions"),
        ({"aggregation": {"clip": 2.0}}, "aggregation.clip has no effect"),
        ({"aggregation": {"over_norm": "reject"}}, "aggregation.over_norm has no effect"),
        ({"aggregation": {"contribution_source": "cosine"}}, "contribution_source"),
        ({"codec": {"update": "topk"}}, "topk"),
        ({"codec": {"update": "int4"}}, "int4"),
        ({"schedule": {"buffer_size": 1}}, "one client's update"),
        ({"data": {"clients": 3}}, "at most one update of each client"),
        ({"privacy": {"delta": 0.125}}, "1 in 8 clients"),
        ({"privacy": {"max_versions": 7}}, "the plan needs 64 updates"),
        ({"privacy": {"clip_norm": None, "max_versions": 7}}, "without privacy.clip_norm"),
    ],
)
def test_what_contradicts_it_is_refused_with_a_remedy(
    changed: dict[str, dict[str, Any]], reason: str
) -> None:
    settings = with_settings(**changed)
    settings["privacy"] = {k: v for k, v in settings["privacy"].items() if v is not None}
    with pytest.raises(ConfigError, match=reason) as caught:
        check_effect(parse(settings, "test"))
    assert caught.value.remedy
