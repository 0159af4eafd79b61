"""Records of what a run's journal keeps about clients, tasks and updates."""

from __future__ import annotations

from common.protocol.fields import Count, Identifier, Record, RowKind, Seconds
from common.protocol.updates import ContributionStats


class ClientRecord(Record):
    """A client: its site, and its number of training rows by kind."""

    client_id: Identifier
    site: Identifier
    rows: dict[RowKind, Count]


class AttemptRecord(Record):
    """One attempt of a task, with the time at which it was issued."""

    at: Seconds
    task_id: Identifier
    attempt: Count
    client_id: Identifier
    base_version: Count


class ReceiptRecord(Record):
    """The receipt of a task, with the time at which it was written."""

    at: Seconds
    task_id: Identifier
    client_id: Identifier
    accepted: bool


class AcceptedUpdate(Record):
    """An update that was applied or waits in the buffer, with the time of its acceptance."""

    at: Seconds
    task_id: Identifier
    client_id: Identifier
    worker_id: Identifier
    base_version: Count
    stats: ContributionStats
