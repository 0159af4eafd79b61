"""Differential privacy of clients: what the versions of a run may reveal about one of them.

A version is a Gaussian mechanism: a sum in which every client has at most one part, of a norm of at
most C, with Gaussian noise of standard deviation z·C. T versions with updates of a client reveal as
much about it as one with the noise multiplier z/√T, since Gaussian mechanisms compose exactly
(Dong, Roth & Su, "Gaussian Differential Privacy", 2022, corollary 2.1). dp-accounting computes ε
from it (Balle & Wang, "Improving the Gaussian Mechanism", 2018, theorem 8).

Neighbouring runs differ in the updates of one client, which are zero in one of them. Nothing is
gained from sampling: who answers when is not random.
"""

from __future__ import annotations

import importlib.util
import math
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from common.config.config import PrivacyConfig
from common.errors import ConfigError
from common.protocol.fields import Count, Record

NOT_COVERED = "not covered: losses, counts and evaluation sums that clients report"

_Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None


class PrivacySpending(Record):
    """Privacy of the client whose updates are in the most versions.

    Attributes:
        clip_norm: C, the largest norm of an update.
        noise_multiplier: z, standard deviation of the noise of a sum of updates, divided by C.
        versions: Versions with an update of that client, so far.
        versions_at_end: The most that there can be at the end of the plan.
        max_versions: The most that there may be of any client; None without a limit.
        epsilon, epsilon_at_end, epsilon_at_cap: ε after so many versions; None if there is no bound
            (z = 0), or if it was not computed.
        computed: Whether the numbers were computed, which takes the extra `fccl[dp]`.
    """

    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    noise_multiplier: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    versions: Count
    versions_at_end: Count
    max_versions: Count | None = None
    epsilon: _Epsilon = None
    epsilon_at_end: _Epsilon = None
    epsilon_at_cap: _Epsilon = None
    computed: bool = True

    def text(self) -> str:
        """Return one line for people, who have to see `NOT_COVERED` beside it."""
        if self.noise_multiplier == 0:
            return "none: updates are clipped, but noise_multiplier is 0"
        exposed = f"most exposed client: {_times(self.versions)}"
        if not self.computed:
            return f"ε is not computed here (pip install 'fccl[dp]'); {exposed}"
        parts = [f"ε ≤ {_number(self.epsilon)} now, {_number(self.epsilon_at_end)} at the end"]
        if self.max_versions is not None:
            cap = _times(self.max_versions)
            parts.append(f"{_number(self.epsilon_at_cap)} at the cap of {cap}")
        return f"{', '.join(parts)}; δ {self.delta:g}; {exposed}"


def spending_of(
    settings: PrivacyConfig, versions: int, versions_left: int
) -> PrivacySpending | None:
    """Return what was spent, and what will be; None without differential privacy.

    Args:
        settings: The section [privacy].
        versions: Versions with updates of the most exposed client.
        versions_left: Versions that the plan still has.
    """
    if settings.clip_norm is None:
        return None
    cap = settings.max_versions
    at_end = versions + versions_left if cap is None else min(versions + versions_left, cap)
    computed = is_available()

    def epsilon_after(count: int | None) -> float | None:
        if count is None or not computed or settings.noise_multiplier == 0:
            return None
        return epsilon(settings.noise_multiplier, count, settings.delta)

    return PrivacySpending(
        clip_norm=settings.clip_norm,
        noise_multiplier=settings.noise_multiplier,
        delta=settings.delta,
        versions=versions,
        versions_at_end=at_end,
        max_versions=cap,
        epsilon=epsilon_after(versions),
        epsilon_at_end=epsilon_after(at_end),
        epsilon_at_cap=epsilon_after(cap),
        computed=computed,
    )


@lru_cache(maxsize=4096)
def epsilon(noise_multiplier: float, versions: int, delta: float) -> float:
    """Return the smallest ε of that many Gaussian mechanisms with noise.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    if versions == 0:
        return 0.0
    check_available()
    # It imports much of scipy, which takes seconds.
    from dp_accounting import get_epsilon_gaussian  # noqa: PLC0415

    return float(get_epsilon_gaussian(noise_multiplier / math.sqrt(versions), delta))


def is_available() -> bool:
    return importlib.util.find_spec("dp_accounting") is not None


def check_available() -> None:
    """Raise `ConfigError` if dp-accounting is not installed."""
    if not is_available():
        raise ConfigError(
            "differential privacy needs the package dp-accounting", "pip install 'fccl[dp]'"
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _times(count: int) -> str:
    return "1 version" if count == 1 else f"{count} versions"
