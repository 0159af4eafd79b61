"""What a pane counts over all versions: the updates of each client and worker.

Counted anew only when there is a new version, so that a look twice a second costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.protocol.versions import VersionSummary
from common.store.view import FederationView
from tui.data import figures
from tui.data.figures import AppliedUpdate


class UpdateCounts:
    """Of one run, or of one after the other."""

    def __init__(self) -> None:
        self._last: VersionSummary | None = None
        self._clients: Mapping[str, Sequence[AppliedUpdate]] = {}
        self._workers: Mapping[str, Sequence[AppliedUpdate]] = {}
        self._totals: Mapping[str, float] = {}
        self._slowest: Sequence[tuple[str, float]] = ()

    def by_client(self, view: FederationView) -> Mapping[str, Sequence[AppliedUpdate]]:
        """See `figures.by_client`."""
        self._count(view)
        return self._clients

    def by_worker(self, view: FederationView) -> Mapping[str, Sequence[AppliedUpdate]]:
        """See `figures.by_worker`."""
        self._count(view)
        return self._workers

    def slowest(self, view: FederationView) -> Sequence[tuple[str, float]]:
        """See `figures.slowest`."""
        self._count(view)
        return self._slowest

    def total(self, client: str) -> float:
        """The sum of a client's weights, over all versions counted."""
        return self._totals.get(client, 0.0)

    def _count(self, view: FederationView) -> None:
        versions = view.versions
        if not versions or versions[-1] == self._last:
            return
        self._last = versions[-1]
        self._clients = figures.by_client(versions)
        self._workers = figures.by_worker(versions, figures.sites(view.clients))
        self._slowest = figures.slowest(self._clients)
        self._totals = {
            name: sum(update.weight for _, update in done) for name, done in self._clients.items()
        }
