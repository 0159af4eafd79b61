"""The inboxes of a federation's clients, as heartbeats tell of them: figures, never text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.protocol.heartbeat import Heartbeat, InboxFigures

REMEMBERED = 40  # batches of a client


@dataclass(frozen=True)
class InboxTotals:
    """Items of all clients by what became of them."""

    clients: int
    waiting: int
    learned: int
    settled: int
    rejected: int

    def text(self) -> str:
        """`3 clients: 4 waiting, 5 learned, 60 settled, 7 rejected`."""
        clients = "1 client" if self.clients == 1 else f"{self.clients:,} clients"
        counts = ("waiting", "learned", "settled", "rejected")
        return f"{clients}: " + ", ".join(f"{getattr(self, name):,} {name}" for name in counts)


@dataclass(frozen=True)
class InboxHistory:
    """What was seen of a client's inbox over time: the loss on new items after each batch."""

    at: float
    losses: tuple[float, ...]


def newest_figures(workers: Iterable[Heartbeat]) -> tuple[InboxFigures, ...]:
    """One row for each client, by name.

    Of two workers that serve it, the one that knows of the newer batch is right: the other has not
    looked since, however young its heartbeat. Else the younger heartbeat is.
    """
    found: dict[str, tuple[tuple[float, float, str], InboxFigures]] = {}
    for worker in workers:
        for row in worker.inbox:
            age = (row.at, worker.sent_at, worker.worker_id)
            if row.client_id not in found or age > found[row.client_id][0]:
                found[row.client_id] = age, row
    return tuple(found[client][1] for client in sorted(found))


def add_up(rows: Iterable[InboxFigures]) -> InboxTotals:
    """Over all clients."""
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
    """What was seen, with the batches that are new in these rows; the same where none is."""
    added = {}
    for row in rows:
        before = past.get(row.client_id, InboxHistory(0.0, ()))
        if row.new_after is not None and row.at > before.at:
            losses = (*before.losses, row.new_after)[-REMEMBERED:]
            added[row.client_id] = InboxHistory(row.at, losses)
    return {**past, **added} if added else past
