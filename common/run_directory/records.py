"""Records of a run's journal about clients, tasks and updates."""

from __future__ import annotations

from common.protocol.fields import Count, Identifier, Record, RowKind, Seconds
from common.protocol.updates import ContributionStats


class ClientRecord(Record):
    """A client: its site, and its number of training rows by kind."""

    client_id: Identifier
    site: Identifier
    rows: dict[RowKind, Count]


class AttemptRecord(Record):
    """An attempt of a task."""

    at: Seconds  # when it was issued
    task_id: Identifier
    attempt: Count
    client_id: Identifier
    base_version: Count


class ReceiptRecord(Record):
    """The receipt of a task."""

    at: Seconds  # when it was written
    task_id: Identifier
    client_id: Identifier
    accepted: bool


class AcceptedUpdate(Record):
    """An update that was applied or waits in the buffer."""

    at: Seconds  # when it was accepted
    task_id: Identifier
    client_id: Identifier
    worker_id: Identifier
    base_version: Count
    stats: ContributionStats
