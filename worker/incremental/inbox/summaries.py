"""Summaries of a worker's inboxes: figures for its heartbeat, and what still has to be sent."""

from __future__ import annotations

from dataclasses import dataclass

from common.protocol.heartbeat import InboxFigures
from worker.incremental.inbox.learning_store import LearningStore

MAX_HEARTBEAT_CLIENTS = 64


@dataclass(frozen=True)
class _Summary:
    figures: InboxFigures
    version: int | None  # global version on top of which the client has learned
    unsent: bool
    riding: bool


class InboxSummaries:
    """State of each inbox in one run when it was last processed."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._summaries: dict[str, _Summary] = {}

    def update(self, client: str, store: LearningStore) -> None:
        local = store.local_model(self._run)
        version, parts = (local.version, local.parts) if local else (None, {})
        self._summaries[client] = _Summary(
            store.figures(client), version, unsent="unsent" in parts, riding="riding" in parts
        )

    def figures(self) -> tuple[InboxFigures, ...]:
        """Return the figures of the inboxes that learned last."""
        return tuple(summary.figures for summary in self._latest()[:MAX_HEARTBEAT_CLIENTS])

    def unsent_clients(self) -> tuple[str, ...]:
        """Return the clients with something to send; those that learned last come first."""
        clients = [each.figures.client_id for each in self._latest() if each.unsent]
        return tuple(clients[:MAX_HEARTBEAT_CLIENTS])

    def outdated_clients(self, version: int | None) -> list[str]:
        """Return the clients whose learning is on an older version and not in an update."""
        if version is None:
            return []
        return [
            client
            for client, each in self._summaries.items()
            if each.version is not None and each.version < version and not each.riding
        ]

    def _latest(self) -> list[_Summary]:
        return sorted(self._summaries.values(), key=lambda summary: -summary.figures.at)
