"""Registry of aggregation rules: the rule that the configuration of a run names."""

from __future__ import annotations

from common.config.config import BUILT_IN_RULES, FederationConfig
from common.plugins.entry_points import AGGREGATORS
from coordinator.aggregation.coefficients import server_rate
from coordinator.aggregation.forms import adapter_forms
from coordinator.aggregation.rules.factor import FactorRule
from coordinator.aggregation.rules.ffa import FfaRule
from coordinator.aggregation.rules.plugin import PluginRule
from coordinator.aggregation.rules.private import PrivateRule
from coordinator.aggregation.rules.product import ProductRule
from coordinator.aggregation.rules.pseudo_gradient import PseudoGradientRule
from coordinator.aggregation.rules.rule import Rule


def make_rule(config: FederationConfig) -> Rule:
    """Return the aggregation rule of a run.

    Raises:
        ConfigError: It is a plug-in that is not installed, or that refuses its options.
    """
    aggregation = config.aggregation
    if aggregation.rule == "product":
        return ProductRule(adapter_forms(config))
    if aggregation.rule not in BUILT_IN_RULES:
        options = config.aggregators.get(aggregation.rule, {})
        return PluginRule(aggregation.rule, AGGREGATORS.create(aggregation.rule, options))
    rule: Rule = FfaRule() if aggregation.rule == "ffa" else FactorRule()
    if aggregation.optimizer.name != "none" or aggregation.robust.rule != "none":
        rule = PseudoGradientRule(rule, aggregation)
    return _with_noise(rule, config) if config.privacy.enabled else rule


def _with_noise(rule: Rule, config: FederationConfig) -> Rule:
    privacy, aggregation = config.privacy, config.aggregation
    assert privacy.clip_norm is not None  # enabled
    deviation = (
        server_rate(aggregation)
        * privacy.noise_multiplier
        * privacy.clip_norm
        / config.schedule.buffer
    )
    return PrivateRule(rule, deviation)
