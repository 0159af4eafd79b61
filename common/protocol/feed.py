"""One entry of the event feed, which views and logs show."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.protocol.fields import Identifier, Record, Seconds, ShortText


class Event(Record):
    """One entry of the append-only feed; `refs` has the version, client or task, by kind."""

    at: Seconds
    level: Literal["info", "warning", "error"]
    kind: Identifier
    text: ShortText
    refs: dict[str, str | int | float] = Field(default_factory=dict)
