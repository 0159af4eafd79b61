"""Settings that differential privacy ([privacy]) cannot be combined with, each with a remedy."""

from __future__ import annotations

from collections.abc import Iterator

from common import privacy
from common.config.config import FederationConfig, PrivacyConfig
from common.protocol.fields import FEEDBACK_CODECS

LINEAR_RULES = ("factor", "ffa")
"""Rules that begin with a weighted sum, in which one client's part is bounded."""


def privacy_conflicts(config: FederationConfig) -> Iterator[tuple[str, str]]:
    """Yield what contradicts [privacy] and what to do about it.

    Raises:
        ConfigError: The package that computes ε is not installed.
    """
    settings, defaults = config.privacy, PrivacyConfig()
    if not settings.enabled:
        for key in ("noise_multiplier", "delta", "max_versions"):
            if getattr(settings, key) != getattr(defaults, key):
                yield f"privacy.{key} has no effect without privacy.clip_norm", "set clip_norm"
        return
    privacy.check_available()
    yield from _of_aggregation(config)
    if config.codec.update in FEEDBACK_CODECS:
        yield (
            f'codec.update = "{config.codec.update}" carries what it drops from one update into the'
            " next, and differential privacy clips that away",
            'set codec.update to "int8", "bf16" or "fp32"',
        )
    yield from _of_counts(config)


def _of_aggregation(config: FederationConfig) -> Iterator[tuple[str, str]]:
    aggregation = config.aggregation
    if aggregation.contribution_mode != "uniform":
        yield (
            f'aggregation.contribution_mode = "{aggregation.contribution_mode}" weighs updates by'
            " private figures, and differential privacy needs equal weights",
            'set aggregation.contribution_mode = "uniform"',
        )
    if aggregation.rule not in LINEAR_RULES:
        yield (
            f'aggregation.rule = "{aggregation.rule}" is no sum in which an update is bounded, as'
            " differential privacy needs",
            'set aggregation.rule to "ffa" (less noise) or "factor"',
        )
    if aggregation.robust.rule != "none":
        yield (
            f'aggregation.robust.rule = "{aggregation.robust.rule}" chooses updates by private'
            " values, and differential privacy needs a sum of all",
            'set aggregation.robust.rule = "none": updates are clipped to privacy.clip_norm',
        )
    if aggregation.cache_updates:
        yield (
            "aggregation.cache_updates uses an update in several versions, and differential privacy"
            " counts it in one",
            "set aggregation.cache_updates = false",
        )
    for key in ("clip", "over_norm"):
        if getattr(aggregation, key) != getattr(type(aggregation)(), key):
            yield (
                f"aggregation.{key} has no effect with differential privacy, which clips to"
                " privacy.clip_norm: the median of norms is private",
                "leave it out",
            )


def _of_counts(config: FederationConfig) -> Iterator[tuple[str, str]]:
    settings, buffer, clients = config.privacy, config.schedule.buffer, config.data.clients
    if buffer == 1:
        yield (
            "schedule.buffer_size is 1: each version would be one client's update, under noise that"
            " is many times as large",
            "set schedule.buffer_size to as many updates as the run can wait for",
        )
    if not clients:
        return
    if buffer > clients:
        yield (
            f"schedule.buffer_size is {buffer}, but with differential privacy a version has at most"
            f" one update of each client, and there are {clients}",
            "lower schedule.buffer_size, or raise data.clients",
        )
    if settings.delta >= 1 / clients:
        yield (
            f"privacy.delta = {settings.delta:g} is no less than 1 in {clients} clients: that much"
            " allows to publish one of them",
            f"set it far below {1 / clients:g}",
        )
    needed = buffer * sum(phase.versions for phase in config.phase)
    if settings.max_versions is not None and clients * settings.max_versions < needed:
        yield (
            f"the plan needs {needed} updates, but {clients} clients may contribute to"
            f" {settings.max_versions} versions each",
            "raise privacy.max_versions, or plan fewer versions or a smaller buffer_size",
        )
