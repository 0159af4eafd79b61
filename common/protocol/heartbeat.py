"""The heartbeat of a worker, and the figures of its clients' inboxes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from common.protocol.fields import (
    Count,
    Fraction,
    Identifier,
    Loss,
    Record,
    Seconds,
    Sha256,
    ShortText,
    list_to_tuple,
)


class InboxFigures(Record):
    """Figures of a client's inbox: items by state, and the result of the newest batch.

    They never contain user text. Losses are in nats, before and after the newest batch, on the new
    items that were held out and on the anchors. `forgetting` and `backward_transfer` are in
    accuracy where it is measured, else in loss; `worker/incremental/report/stream.py` has the
    formulas.
    """

    client_id: Identifier
    waiting: Count
    learned: Count
    settled: Count
    rejected: Count
    verdict: Literal["", "accepted", "rejected"] = ""
    reason: ShortText = ""
    at: Seconds = 0.0
    new_before: Loss | None = None
    new_after: Loss | None = None
    anchor_before: Loss | None = None
    anchor_after: Loss | None = None
    forgetting: Annotated[float, Field(allow_inf_nan=False)] | None = None
    backward_transfer: Annotated[float, Field(allow_inf_nan=False)] | None = None


class LocalEvent(Record):
    """Something that happened at a worker, published in its heartbeat. Never user text."""

    at: Seconds
    kind: Identifier
    text: ShortText


class Heartbeat(Record):
    """Worker → store, every few seconds with a time to live: what the worker claims to do.

    Attributes:
        inbox: Figures of clients with live input, the busiest first.
        wishes: Clients that have learned something and would like a task soon, to send it.
        rests_until: Time at which a worker that rests outside its hours takes tasks again.
    """

    added: ClassVar[frozenset[str]] = frozenset({"rests_until"})

    worker_id: Identifier
    site: Identifier
    state: Literal[
        "starting",
        "waiting",
        "fetching",
        "training",
        "evaluating",
        "publishing",
        "resting",
        "stopping",
    ]
    clients: Annotated[
        tuple[Identifier, ...], Field(max_length=4096), BeforeValidator(list_to_tuple)
    ] = ()
    task_id: Identifier | None = None
    client_id: Identifier | None = None
    wants: Sha256 | None = None  # digest of the base model that it asks the coordinator for
    progress: Fraction = 0.0
    tokens_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    last_loss: Loss | None = None
    base_version: Count | None = None
    device: ShortText = ""
    host: ShortText = ""
    software: ShortText = ""
    sent_at: Seconds = 0.0
    rests_until: Seconds | None = None
    inbox: Annotated[
        tuple[InboxFigures, ...], Field(max_length=64), BeforeValidator(list_to_tuple)
    ] = ()
    wishes: Annotated[
        tuple[Identifier, ...], Field(max_length=64), BeforeValidator(list_to_tuple)
    ] = ()
    events: Annotated[
        tuple[LocalEvent, ...], Field(max_length=20), BeforeValidator(list_to_tuple)
    ] = ()
