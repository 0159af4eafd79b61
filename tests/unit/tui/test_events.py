"""Filters over the event feed."""

from __future__ import annotations

from tests.support.tui.builders import event
from tui.data import events


def test_events_are_filtered_by_level_and_by_text_of_any_case() -> None:
    feed = [
        event("one", client="Client_7"),
        event("two", "warning"),
        event("three", "error", "lease"),
    ]
    assert events.filter_events(feed, "warning", "") == feed[1:]
    assert events.filter_events(feed, "info", "client_7") == feed[:1]
    assert events.filter_events(feed, "info", "LEASE") == feed[2:]


def test_rejections_are_newest_first_with_their_reason() -> None:
    feed = [
        event("update of a rejected: stale", "warning", "rejected", reason="stale"),
        event("version 1"),
        event("written by an older release", "warning", "rejected"),
    ]
    reasons = [events.rejection_reason(each) for each in events.recent_rejections(feed)]
    assert reasons == ["written by an older release", "stale"]


def test_an_event_leads_to_its_client_before_its_version() -> None:
    assert events.event_target(event("x", version=3)) == ("version", "3")
    assert events.event_target(event("x", version=3, client="a")) == ("client", "a")
    assert events.event_target(event("x", task="t1")) is None
