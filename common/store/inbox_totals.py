"""Figures of all clients' inboxes, from the heartbeats of their workers. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.protocol.heartbeat import Heartbeat, InboxFigures

MAX_BATCHES = 40  # of a client's history


@dataclass(frozen=True)
class InboxTotals:
    """Items of all clients, by state."""

    clients: int
    waiting: int
    learned: int
    settled: int
    rejected: int

    def text(self) -> str:
        """Return e.g. `3 clients: 4 waiting, 5 learned, 60 settled, 7 rejected`."""
        clients = "1 client" if self.clients == 1 else f"{self.clients:,} clients"
        counts = ("waiting", "learned", "settled", "rejected")
        return f"{clients}: " + ", ".join(f"{getattr(self, name):,} {name}" for name in counts)


@dataclass(frozen=True)
class InboxHistory:
    """History of a client's inbox: the loss on new items after each batch."""

    at: float  # time of the newest batch
    losses: tuple[float, ...]


def newest_figures(workers: Iterable[Heartbeat]) -> tuple[InboxFigures, ...]:
    """Return one row for each client, sorted by name.

    If two workers serve a client, the figures with the newer batch are right: the other worker has
    not looked since, however new its heartbeat. With equal batches the newer heartbeat wins.
    """
    newest: dict[str, tuple[tuple[float, float, str], InboxFigures]] = {}
    for worker in workers:
        for row in worker.inbox:
            age = (row.at, worker.sent_at, worker.worker_id)
            if row.client_id not in newest or age > newest[row.client_id][0]:
                newest[row.client_id] = age, row
    return tuple(newest[client][1] for client in sorted(newest))


def add_up(rows: Iterable[InboxFigures]) -> InboxTotals:
    known = tuple(rows)
    return InboxTotals(
        clients=len(known),
        waiting=sum(row.waiting for row in known),
        learned=sum(row.learned for row in known),
        settled=sum(row.settled for row in known),
        rejected=sum(row.rejected for row in known),
    )


def extend_histories(
    past: Mapping[str, InboxHistory], rows: Iterable[InboxFigures]
) -> Mapping[str, InboxHistory]:
    """Return the histories with the new batches of these rows; the same object if none is new."""
    added = {}
    for row in rows:
        before = past.get(row.client_id, InboxHistory(0.0, ()))
        if row.new_after is not None and row.at > before.at:
            losses = (*before.losses, row.new_after)[-MAX_BATCHES:]
            added[row.client_id] = InboxHistory(row.at, losses)
    return {**past, **added} if added else past
