"""Filters over the event feed, and what an event is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from common.protocol.feed import Event

LEVELS = ("info", "warning", "error")


def filter_events(events: Iterable[Event], level: str, text: str) -> list[Event]:
    """Return the events of a level or worse whose kind, text or refs contain a text of any case."""
    levels = LEVELS[LEVELS.index(level) :]
    return [e for e in events if e.level in levels and text.casefold() in _searchable(e)]


def recent_rejections(events: Iterable[Event]) -> list[Event]:
    """Return the rejected updates in the feed, newest first."""
    return [event for event in events if event.kind == "rejected"][::-1]


def rejection_reason(event: Event) -> str:
    """Return why an update was rejected; the whole text in runs of an older release."""
    return str(event.refs.get("reason", event.text))


def event_target(event: Event) -> tuple[Literal["client", "version"], str] | None:
    """Return the client that an event is about, or else its version."""
    if "client" in event.refs:
        return "client", str(event.refs["client"])
    if "version" in event.refs:
        return "version", str(event.refs["version"])
    return None


def _searchable(event: Event) -> str:
    refs = " ".join(str(value) for value in event.refs.values())
    return f"{event.kind} {event.text} {refs}".casefold()
