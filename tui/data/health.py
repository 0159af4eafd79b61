"""Checks that answer the overview's three questions: is the run healthy, learning, balanced?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from common.protocol.versions import VersionSummary
from common.store.view import FederationView
from tui.data.figures import RECENT, median_seconds
from tui.formatting import plural

SLOW_FACTOR = 3  # times the median training time
MIN_LOSSES = 4  # fewer show no trend


@dataclass(frozen=True)
class HealthCheck:
    """Result of a check, with the reason."""

    good: bool | None  # None for neither good nor bad
    text: str


def check_health(view: FederationView) -> HealthCheck:
    """Check whether the run makes progress."""
    info, workers = view.info, len(view.workers)
    if info.status == "finished":
        return HealthCheck(True, "the run is over")
    if info.status != "running":
        # The detail may begin with the status: "waiting for workers: …".
        named = info.detail.startswith(info.status)
        text = info.detail if named else f"{info.status}: {info.detail}"
        if info.status == "waiting" and any(w.rests_until is not None for w in view.workers):
            return HealthCheck(None, text)
        return HealthCheck(False if info.status in ("failed", "waiting") else None, text)
    if not workers:
        return HealthCheck(False, "no live workers")
    quarantined = sum(client.quarantined for client in view.clients)
    if quarantined:
        return HealthCheck(None, f"{quarantined} of {len(view.clients)} clients quarantined")
    return HealthCheck(True, f"{plural(workers, 'live worker')}, {info.detail}")


def check_learning(versions: Sequence[VersionSummary]) -> HealthCheck:
    """Check whether the loss on the clients' holdouts falls, or else their training loss.

    Compares the two halves of the last versions of this phase. The holdout loss is the one before
    each client trained, which measures the shared model. A run that measures none is judged by the
    training loss, which says less.
    """
    made = [v for v in versions if v.phase == versions[-1].phase]
    losses = [v.holdout_before for v in made if v.holdout_before is not None]
    name, note = "holdout loss", ""
    if not losses:
        losses = [v.train_loss for v in made if v.train_loss is not None]
        name, note = "training loss", " (no holdout)"
    losses = losses[-2 * RECENT :]
    if len(losses) < MIN_LOSSES:
        return HealthCheck(None, "too early to tell")
    half = len(losses) // 2
    before, after = median(losses[:half]), median(losses[half:])
    text = f"{name} {before:.3f} → {after:.3f}, last {len(losses)} versions"
    if after < before:
        return HealthCheck(True, text + note)
    return HealthCheck(False, f"{text}: not falling{note}")


def check_balance(
    versions: Sequence[VersionSummary], slowest: Sequence[tuple[str, float]]
) -> HealthCheck:
    """Check whether one client takes far longer than the others.

    `slowest` is the result of `figures.slowest_clients`.
    """
    usual = median_seconds(versions)
    if usual is None or not slowest:
        return HealthCheck(None, "no update yet")
    client, seconds = slowest[0]
    text = f"{client} {seconds:.1f} s per update, median {usual:.1f} s"
    return HealthCheck(seconds <= SLOW_FACTOR * usual, text)
