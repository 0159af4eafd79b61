"""The event pane: filters, following, and where an event leads."""

from __future__ import annotations

from textual.pilot import Pilot

from common.protocol.feed import Event
from tests.support.tui.views import Host, drive, event, look, screen, until
from tui.data.reader import Snapshot
from tui.panes.log import LogPane
from tui.widgets.row_list import RowList


class LogHost(Host):
    def on_log_pane_event_chosen(self, message: LogPane.EventChosen) -> None:
        self.heard.append(message)


EVENTS = [
    event("t1 to client_0 from version 0", kind="issued", client="client_0", task="t1"),
    event("update of client_1 rejected: stale", "warning", "rejected", client="client_1"),
    event("version 1: fine", kind="version", version=1),
    event("client_1 is quarantined", "error", "quarantined", client="client_1"),
    event("[b]no markup[/b] and no \x1b[31mescapes", kind="note"),
]


def listed(host: Host) -> list[str]:
    """The events in sight, without the scroll bar."""
    return [line[:90].rstrip() for line in screen(host).splitlines()[1:-1]]


def many(count: int, first: int = 0) -> list[Event]:
    return [event(f"number {i}.") for i in range(first, first + count)]


def test_events_stand_newest_at_the_bottom_as_they_are() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(events=EVENTS))
        await until(pilot, "the last", lambda: "[b]no markup[/b]" in screen(host))
        lines = screen(host).splitlines()
        order = [
            i for word in ("t1 to", "rejected", "1: fine") for i, x in enumerate(lines) if word in x
        ]
        assert order[:3] == sorted(order[:3])
        assert "! rejected" in screen(host) and "x quarantined" in screen(host)
        assert "5 of 5 events · all levels · newest" in lines[0]

    drive(host, script, (80, 24))


def test_l_goes_from_all_events_to_warnings_to_errors_and_back() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(events=EVENTS))
        seen = []
        for _ in range(3):
            await pilot.press("l")
            await pilot.pause()
            seen.append(screen(host).splitlines()[0])
        assert [line.partition(" events")[0] for line in seen] == ["2 of 5", "1 of 5", "5 of 5"]

    drive(host, script)


def test_slash_filters_by_text_and_escape_shows_all() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(events=EVENTS))
        await pilot.press("slash", *"CLIENT_1")
        await until(pilot, "two", lambda: "2 of 5" in screen(host))
        await pilot.press("enter", "up")
        assert "rejected: stale" in screen(host).splitlines()[-1]
        await pilot.press("escape")
        await until(pilot, "all", lambda: "5 of 5" in screen(host))

    drive(host, script)


def test_it_follows_the_newest_until_the_cursor_moves_up_and_again_at_the_end() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        events = many(100)
        host.pane.show(look(events=events))
        await until(pilot, "the newest", lambda: "number 99." in screen(host))
        events += many(10, 100)
        host.pane.show(look(events=events))
        await until(pilot, "the newest", lambda: "number 109." in screen(host))
        await pilot.press("up", "up")
        events = [*events[5:], *many(5, 110)]  # the feed is bounded: the oldest leave it
        host.pane.show(look(events=events))
        await until(pilot, "held", lambda: "held here" in screen(host))
        assert "number 107." in screen(host).splitlines()[-1]
        assert "number 114." not in screen(host)
        await pilot.press("end")
        await until(pilot, "the newest", lambda: "number 114." in screen(host))

    drive(host, script)


def test_a_scrolled_list_stays_where_it_is_while_events_arrive() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        events = many(200)
        host.pane.show(look(events=events))
        await pilot.press("home", *["pagedown"] * 4)
        await pilot.pause()
        before = listed(host)
        for start in (200, 210):
            events = [*events[10:], *many(10, start)]
            host.pane.show(look(events=events))
            await pilot.pause()
        assert listed(host) == before

    drive(host, script)


def test_enter_leads_to_the_client_or_the_version_of_an_event() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(events=EVENTS))
        await pilot.pause()
        host.query_one(RowList).focus()
        await pilot.press("enter", "up", "enter", "up", "enter")  # the note leads nowhere
        await until(pilot, "two", lambda: len(host.heard) == 2)
        jumps = [(m.kind, m.name) for m in host.heard if isinstance(m, LogPane.EventChosen)]
        assert jumps == [("client", "client_1"), ("version", "1")]

    drive(host, script)


def test_nothing_known_is_said() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(Snapshot())
        await until(pilot, "empty", lambda: "no events" in screen(host))

    drive(host, script, (80, 24))


def test_a_click_moves_the_cursor_and_another_one_chooses() -> None:
    host = LogHost(LogPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(events=EVENTS))
        await pilot.pause()
        await pilot.click(RowList, offset=(5, 1))
        await until(pilot, "the second", lambda: "stale" in screen(host).splitlines()[-1])
        assert not host.heard
        await pilot.click(RowList, offset=(5, 1))
        await until(pilot, "it is chosen", lambda: len(host.heard) == 1)

    drive(host, script)
