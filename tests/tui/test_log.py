"""Log pane: filters, following new events, and what an event opens."""

from __future__ import annotations

from textual.pilot import Pilot

from common.protocol.feed import Event
from tests.support.tui.builders import event, snapshot
from tests.support.tui.pilot import PaneApp, run_pane, screen_text, wait_until
from tui.data.reader import Snapshot
from tui.panes.log import LogPane
from tui.widgets.row_list import RowList


class LogApp(PaneApp):
    def on_log_pane_event_chosen(self, message: LogPane.EventChosen) -> None:
        self.messages.append(message)


EVENTS = [
    event("t1 to client_0 from version 0", kind="issued", client="client_0", task="t1"),
    event("update of client_1 rejected: stale", "warning", "rejected", client="client_1"),
    event("version 1: fine", kind="version", version=1),
    event("client_1 is quarantined", "error", "quarantined", client="client_1"),
    event("[b]no markup[/b] and no \x1b[31mescapes", kind="note"),
]


def listed(app: PaneApp) -> list[str]:
    """Return the events in sight, without the scroll bar."""
    return [line[:90].rstrip() for line in screen_text(app).splitlines()[1:-1]]


def many(count: int, first: int = 0) -> list[Event]:
    return [event(f"number {i}.") for i in range(first, first + count)]


def test_events_are_plain_text_with_the_newest_at_the_bottom() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(events=EVENTS))
        await wait_until(pilot, "the last", lambda: "[b]no markup[/b]" in screen_text(app))
        lines = screen_text(app).splitlines()
        order = [
            i for word in ("t1 to", "rejected", "1: fine") for i, x in enumerate(lines) if word in x
        ]
        assert order[:3] == sorted(order[:3])
        assert "! rejected" in screen_text(app) and "x quarantined" in screen_text(app)
        assert "5 of 5 events · all levels · follows new events" in lines[0]

    run_pane(app, script, (80, 24))


def test_l_switches_between_all_events_warnings_and_errors() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(events=EVENTS))
        seen = []
        for _ in range(3):
            await pilot.press("l")
            await pilot.pause()
            seen.append(screen_text(app).splitlines()[0])
        assert [line.partition(" events")[0] for line in seen] == ["2 of 5", "1 of 5", "5 of 5"]

    run_pane(app, script)


def test_slash_filters_by_text_and_escape_shows_all_again() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(events=EVENTS))
        await pilot.press("slash", *"CLIENT_1")
        await wait_until(pilot, "two", lambda: "2 of 5" in screen_text(app))
        await pilot.press("enter", "up")
        assert "rejected: stale" in screen_text(app).splitlines()[-1]
        await pilot.press("escape")
        await wait_until(pilot, "all", lambda: "5 of 5" in screen_text(app))

    run_pane(app, script)


def test_the_log_follows_new_events_while_the_cursor_is_at_the_end() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        events = many(100)
        app.pane.show(snapshot(events=events))
        await wait_until(pilot, "the newest", lambda: "number 99." in screen_text(app))
        events += many(10, 100)
        app.pane.show(snapshot(events=events))
        await wait_until(pilot, "the newest", lambda: "number 109." in screen_text(app))
        await pilot.press("up", "up")
        events = [*events[5:], *many(5, 110)]  # the feed is bounded and drops the oldest
        app.pane.show(snapshot(events=events))
        await wait_until(pilot, "not following", lambda: "press end to follow" in screen_text(app))
        assert "number 107." in screen_text(app).splitlines()[-1]
        assert "number 114." not in screen_text(app)
        await pilot.press("end")
        await wait_until(pilot, "the newest", lambda: "number 114." in screen_text(app))

    run_pane(app, script)


def test_a_scrolled_list_stays_where_it_is_while_events_arrive() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        events = many(200)
        app.pane.show(snapshot(events=events))
        await pilot.press("home", *["pagedown"] * 4)
        await pilot.pause()
        before = listed(app)
        for start in (200, 210):
            events = [*events[10:], *many(10, start)]
            app.pane.show(snapshot(events=events))
            await pilot.pause()
        assert listed(app) == before

    run_pane(app, script)


def test_enter_opens_the_client_or_the_version_of_an_event() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(events=EVENTS))
        await pilot.pause()
        app.query_one(RowList).focus()
        await pilot.press("enter", "up", "enter", "up", "enter")  # the note leads nowhere
        await wait_until(pilot, "two", lambda: len(app.messages) == 2)
        jumps = [(m.kind, m.name) for m in app.messages if isinstance(m, LogPane.EventChosen)]
        assert jumps == [("client", "client_1"), ("version", "1")]

    run_pane(app, script)


def test_an_empty_log_shows_an_explanation() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(Snapshot())
        await wait_until(pilot, "empty", lambda: "no events" in screen_text(app))

    run_pane(app, script, (80, 24))


def test_a_click_moves_the_cursor_and_a_second_click_chooses() -> None:
    app = LogApp(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(events=EVENTS))
        await pilot.pause()
        await pilot.click(RowList, offset=(5, 1))
        await wait_until(pilot, "the second", lambda: "stale" in screen_text(app).splitlines()[-1])
        assert not app.messages
        await pilot.click(RowList, offset=(5, 1))
        await wait_until(pilot, "it is chosen", lambda: len(app.messages) == 1)

    run_pane(app, script)
