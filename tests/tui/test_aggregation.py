"""The aggregation pane: what a version is made of, weights over time, what was refused."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from common.protocol.feed import Event
from common.protocol.versions import VersionSummary
from tests.support.tui.views import Host, drive, event, look, screen, until, update, version
from tui.panes.aggregation import AggregationPane
from tui.widgets.row_list import RowList
from tui.widgets.weight_map import WeightMap

SIZES = [(80, 20), (120, 30), (200, 50)]


def history(count: int) -> tuple[VersionSummary, ...]:
    """A start, then versions of two updates each by three clients in turn."""
    made = [version(0, train_loss=None)]
    for number in range(1, count + 1):
        one, other = f"client_{number % 3}", f"client_{(number + 1) % 3}"
        first = update(one, task_id=f"t{2 * number}", weight=0.25, coefficient=0.125, staleness=3)
        second = update(other, task_id=f"t{2 * number + 1}", weight=0.75, clip=0.5)
        made.append(version(number, first, second))
    return tuple(made)


def rejected(client: str, why: str) -> Event:
    return event(f"update of {client} rejected: {why}", "warning", "rejected", client=client)


REJECTED = [rejected("client_2", "staleness 21 is over 20"), rejected("client_1", "a norm of 9")]


@pytest.mark.parametrize("size", SIZES)
def test_the_newest_version_is_taken_apart(size: tuple[int, int]) -> None:
    host = Host(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(versions=history(12), events=REJECTED))
        await until(pilot, "version 12", lambda: "version 12: 2 updates" in screen(host))
        await until(pilot, "ages", lambda: "   3 ████████████████ 12" in screen(host))
        shown = screen(host)
        assert "t24" in shown and "0.250" in shown and "0.125" in shown and "0.50" in shown
        assert "coefficients sum to 0.625" in shown
        assert "rejected: 2 of late" in shown and "! client_1: a norm of 9" in shown
        assert "9 is 0.75" in shown

    drive(host, script, size)


def test_the_cursor_chooses_the_version_and_stays_on_it_while_others_arrive() -> None:
    host = Host(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(versions=history(5)))
        await until(pilot, "the newest", lambda: "version 5: 2" in screen(host))
        host.query_one("#agg-versions", RowList).focus()
        await pilot.press("down", "down")
        await until(pilot, "an older one", lambda: "version 3: 2" in screen(host))
        host.pane.show(look(versions=history(9)))
        await pilot.pause()
        assert "version 3: 2" in screen(host)
        await pilot.press("end")
        await until(pilot, "the start", lambda: "version 0: the start" in screen(host))
        await pilot.press("home")
        host.pane.show(look(versions=history(10)))
        await until(pilot, "the newest", lambda: "version 10: 2" in screen(host))

    drive(host, script)


def test_a_version_can_be_chosen_from_elsewhere() -> None:
    host = Host(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(versions=history(300)))
        host.pane.select(7)
        await until(pilot, "version 7", lambda: "version 7: 2" in screen(host))

    drive(host, script)


def lines(host: Host) -> list[str]:
    """Those of the map."""
    shown = screen(host).splitlines()
    start = next(i for i, line in enumerate(shown) if line.startswith("weights by version"))
    return [line for line in shown[start:] if line]


def test_the_map_has_a_digit_for_every_weight() -> None:
    host = Host(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(versions=history(3)))
        await until(pilot, "the map", lambda: "client_2" in screen(host))
        rows = {line.split()[0]: line for line in lines(host)}
        # Versions 0 to 3; 0.25 is 3 of 9, 0.75 is 9.
        assert rows["client_0"][15:19] == "  93"
        assert rows["client_1"][15:19] == " 3 9"
        assert rows["client_2"][15:18] == " 93"

    drive(host, script, (100, 30))


def test_a_thousand_clients_and_versions_scroll() -> None:
    host = Host(AggregationPane())
    versions = [version(n, update(f"client_{n}", task_id=f"t{n}")) for n in range(1000)]

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look(versions=versions))
        host.query_one(WeightMap).focus()
        await pilot.press("end")
        await until(pilot, "the last client", lambda: "client_999 " in screen(host))

    drive(host, script, (80, 24))


def test_a_run_without_versions_says_so() -> None:
    host = Host(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look())
        await until(pilot, "empty", lambda: "no version yet" in screen(host))
        assert "no update is applied yet" in screen(host)

    drive(host, script, (80, 20))
