"""Records with which a client of an invited site joins a run."""

from __future__ import annotations

from typing import ClassVar, Literal

from common.protocol.fields import Count, Identifier, Record, RowKind, ShortText


class Enrolment(Record):
    """Worker → coordinator: a client of an invited site has rows of its own, counted by kind.

    Sent until there is a `Membership`, and again whenever the rows have changed. `shares_updates`
    says that the site lets other clients evaluate its updates, and evaluates theirs.
    """

    added: ClassVar[frozenset[str]] = frozenset({"shares_updates"})

    client_id: Identifier
    worker_id: Identifier
    rows: dict[RowKind, Count]
    nonce: Count
    software: ShortText = ""
    shares_updates: bool | None = None


class Membership(Record):
    """Coordinator → worker: whether a client takes part, and why not.

    `nonce` is that of the `Enrolment` that this answers; 0 if it was published without one.
    """

    client_id: Identifier
    state: Literal["member", "refused", "left"]
    nonce: Count = 0
    reason: ShortText = ""
