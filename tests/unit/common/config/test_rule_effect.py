"""Settings that contradict an aggregation rule are refused, each with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from common.config.config import FederationConfig
from common.config.effect import check_effect
from common.errors import ConfigError


def config(rule: str = "product", **sections: dict[str, Any]) -> FederationConfig:
    aggregation = {"rule": rule, **sections.pop("aggregation", {})}
    return FederationConfig.model_validate({"aggregation": aggregation, **sections})


@pytest.mark.parametrize(
    ("settings", "problem", "remedy"),
    [
        (config("factor", model={"ranks": {"client_0": 4}}), "same rank everywhere", '"product"'),
        (config("ffa", model={"ranks": {"client_0": 4}}), "one factor A", '"product"'),
        (config(model={"ranks": {"client_0": 17}}), "above that of the versions", "to 17 or more"),
        (
            config(model={"ranks": {"a": 3}, "lora": {"r": 16, "alpha": 8}}),
            "alpha would be 1.5",
            "multiple of model.lora.r = 16",
        ),
        (config("ffa", model={"lora": False}), "trains all", '"factor"'),
        (config(aggregation={"optimizer": {"name": "adam"}}), "moments", '"ffa"'),
        (config(aggregation={"robust": {"rule": "median"}}), "compares changes", '"ffa"'),
        (config(aggregation={"cache_updates": True}), "earlier changes", '"ffa"'),
        (config(aggregation={"contribution_source": "cosine"}), "mean nothing", '"ffa"'),
        (config(codec={"update": "topk"}), "what was lost", '"int8"'),
    ],
)
def test_what_contradicts_the_rule_is_refused_with_a_remedy(
    settings: FederationConfig, problem: str, remedy: str
) -> None:
    with pytest.raises(ConfigError) as found:
        check_effect(settings)
    assert problem in found.value.what
    assert remedy in found.value.remedy


def test_ranks_up_to_that_of_the_versions_are_accepted() -> None:
    check_effect(config(model={"ranks": {"client_0": 4, "site-a": 8, "client_1": 16}}))
    check_effect(config("ffa"))
