"""Check of [aggregation]: settings that have no effect, contradict each other, or cannot work.

A part of `common/config/effect.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.config import BUILT_IN_RULES, FederationConfig
from common.config.section import Section

Problems = Iterator[tuple[str, str]]

_LEAVE_OUT = "leave it out"
_MAX_ADAPTIVE_LR = 0.1
_ADAPTIVE = ("adagrad", "adam", "yogi")
_OPTIMIZER_KEYS = {
    "beta1": ("momentum", *_ADAPTIVE),
    "beta2": ("adam", "yogi"),
    "tau": _ADAPTIVE,
}
"""Keys of [aggregation.optimizer], and the optimizers that read them."""
_ROBUST_KEYS = {
    "share": ("trimmed-mean", "krum", "multi-krum"),
    "threshold": ("cosine-filter",),
    "radius": ("centered-clip",),
    "iterations": ("centered-clip",),
}
"""Keys of [aggregation.robust], and the rules that read them."""
_WEIGHT_KEYS = ("contribution_source", "score_scale", "temperature", "floor", "cap")
_STALENESS_KEYS = ("staleness", "staleness_exponent", "staleness_threshold")


def aggregation_problems(config: FederationConfig) -> Problems:
    """Yield each problem with its remedy."""
    yield from _of_steps(config)
    yield from _of_optimizer(config)
    yield from _of_robust_rule(config)
    yield from _of_weights(config)
    yield from _of_staleness(config)


def changed_keys(section: Section, keys: tuple[str, ...]) -> list[str]:
    """Return the keys that do not have their default."""
    defaults = type(section)()
    return [key for key in keys if getattr(section, key) != getattr(defaults, key)]


def _of_steps(config: FederationConfig) -> Problems:
    """Yield the steps that cannot be combined."""
    aggregation = config.aggregation
    rule, robust = aggregation.rule, aggregation.robust.rule
    steps = {
        f'aggregation.optimizer.name = "{aggregation.optimizer.name}"': (
            aggregation.optimizer.name != "none"
        ),
        f'aggregation.robust.rule = "{robust}"': robust != "none",
        "aggregation.cache_updates": aggregation.cache_updates,
    }
    for what, used in steps.items():
        if used and rule not in BUILT_IN_RULES:  # `rule_effect` has those of `product`
            yield (
                f'{what} cannot be combined with aggregation.rule = "{rule}", a plug-in, which'
                " makes the whole step itself",
                'leave it out, or set aggregation.rule to "factor" or "ffa"',
            )
    if aggregation.cache_updates and robust != "none":
        yield (
            "aggregation.cache_updates would keep applying what aggregation.robust.rule ="
            f' "{robust}" has left out',
            "leave out one of them",
        )


def _of_optimizer(config: FederationConfig) -> Problems:
    aggregation, optimizer = config.aggregation, config.aggregation.optimizer
    for key in changed_keys(optimizer, tuple(_OPTIMIZER_KEYS)):
        if optimizer.name not in _OPTIMIZER_KEYS[key]:
            yield (
                f'aggregation.optimizer.{key} has no effect with name = "{optimizer.name}"',
                f"leave it out: it belongs to {', '.join(_OPTIMIZER_KEYS[key])}",
            )
    if optimizer.name in _ADAPTIVE and aggregation.server_lr > _MAX_ADAPTIVE_LR:
        yield (
            f"aggregation.server_lr = {aggregation.server_lr:g} is far too large for"
            f" {optimizer.name}, which moves every parameter by up to about that in each version",
            "set aggregation.server_lr = 1e-3",
        )


def _of_robust_rule(config: FederationConfig) -> Problems:
    robust, updates = config.aggregation.robust, config.schedule.buffer
    for key in changed_keys(robust, tuple(_ROBUST_KEYS)):
        if robust.rule not in _ROBUST_KEYS[key]:
            yield (
                f'aggregation.robust.{key} has no effect with rule = "{robust.rule}"',
                f"leave it out: it belongs to {', '.join(_ROBUST_KEYS[key])}",
            )
    if robust.rule == "none":
        return
    if updates < 3:
        yield (
            f'aggregation.robust.rule = "{robust.rule}" needs a majority, but a version has'
            f" {updates} updates",
            "set schedule.buffer_size to 3 or more",
        )
    faulty = int(robust.share * updates + 1e-9)
    if robust.rule in ("trimmed-mean", "multi-krum") and not faulty:
        yield (
            f'aggregation.robust.rule = "{robust.rule}" leaves out nothing: a share of'
            f" {robust.share:g} of {updates} updates is less than one",
            "raise aggregation.robust.share or schedule.buffer_size",
        )
    if robust.rule in ("krum", "multi-krum") and updates < 2 * faulty + 3:
        yield (
            f'aggregation.robust.rule = "{robust.rule}" needs 2f + 3 = {2 * faulty + 3} updates to'
            f" stand f = {faulty} faulty ones, but a version has {updates}",
            "raise schedule.buffer_size, or lower aggregation.robust.share",
        )


def _of_weights(config: FederationConfig) -> Problems:
    aggregation = config.aggregation
    if not aggregation.weighs_equally and aggregation.contribution_mode != "uniform":
        return
    why = 'contribution_mode = "uniform"'
    if aggregation.cache_updates:
        why = "aggregation.cache_updates, which is a mean over all clients"
    elif aggregation.weighs_equally:
        why = f'aggregation.robust.rule = "{aggregation.robust.rule}", which has no weights'
    keys = changed_keys(aggregation, ("contribution_mode", *_WEIGHT_KEYS))
    for key in keys:
        if key != "contribution_mode" or aggregation.contribution_mode != "uniform":
            yield f"aggregation.{key} has no effect with {why}", _LEAVE_OUT


def _of_staleness(config: FederationConfig) -> Problems:
    aggregation = config.aggregation
    if aggregation.cache_updates:
        for key in changed_keys(aggregation, _STALENESS_KEYS):
            yield (
                f"aggregation.{key} has no effect with aggregation.cache_updates, which discounts"
                " nothing",
                _LEAVE_OUT,
            )
    if aggregation.staleness != "hinge":
        for key in changed_keys(aggregation, ("staleness_threshold",)):
            yield (
                f'aggregation.{key} has no effect with staleness = "{aggregation.staleness}"',
                'leave it out, or set aggregation.staleness = "hinge"',
            )
    if aggregation.staleness == "constant":
        for key in changed_keys(aggregation, ("staleness_exponent",)):
            yield f'aggregation.{key} has no effect with staleness = "constant"', _LEAVE_OUT
