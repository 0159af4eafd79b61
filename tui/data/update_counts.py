"""Sums over all versions, computed only for a new version, since screens refresh twice a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.protocol.versions import VersionSummary
from common.store.view import FederationView
from tui.data import figures
from tui.data.figures import AppliedUpdate


class UpdateCounts:
    """Figures of a view's run by client and by `site/worker`; see `tui/data/figures.py`."""

    def __init__(self) -> None:
        self._last: VersionSummary | None = None
        self._clients: Mapping[str, Sequence[AppliedUpdate]] = {}
        self._workers: Mapping[str, Sequence[AppliedUpdate]] = {}
        self._weights: Mapping[str, float] = {}
        self._slowest: Sequence[tuple[str, float]] = ()

    def by_client(self, view: FederationView) -> Mapping[str, Sequence[AppliedUpdate]]:
        self._refresh(view)
        return self._clients

    def by_worker(self, view: FederationView) -> Mapping[str, Sequence[AppliedUpdate]]:
        self._refresh(view)
        return self._workers

    def slowest_clients(self, view: FederationView) -> Sequence[tuple[str, float]]:
        self._refresh(view)
        return self._slowest

    def total_weight(self, client: str) -> float:
        return self._weights.get(client, 0.0)

    def _refresh(self, view: FederationView) -> None:
        versions = view.versions
        if not versions or versions[-1] == self._last:
            return
        self._last = versions[-1]
        self._clients = figures.updates_by_client(versions)
        self._workers = figures.updates_by_worker(versions, figures.sites_by_client(view.clients))
        self._slowest = figures.slowest_clients(self._clients)
        self._weights = {
            client: sum(update.weight for _, update in applied)
            for client, applied in self._clients.items()
        }
