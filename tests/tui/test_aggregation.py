"""Aggregation pane: updates of a version, weights over time, rejections."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from tests.support.tui.builders import (
    REJECTIONS,
    snapshot,
    update,
    version,
    version_history,
)
from tests.support.tui.pilot import PaneApp, run_pane, screen_text, wait_until
from tui.panes.aggregation import AggregationPane
from tui.widgets.row_list import RowList
from tui.widgets.weight_map import WeightMap

SIZES = [(80, 20), (120, 30), (200, 50)]


@pytest.mark.parametrize("size", SIZES)
def test_the_updates_of_the_newest_version_are_listed_with_their_factors(
    size: tuple[int, int],
) -> None:
    app = PaneApp(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(versions=version_history(12), events=REJECTIONS))
        await wait_until(pilot, "version 12", lambda: "version 12: 2 updates" in screen_text(app))
        await wait_until(pilot, "ages", lambda: "   3 ████████████████ 12" in screen_text(app))
        shown = screen_text(app)
        assert "t24" in shown and "0.250" in shown and "0.125" in shown and "0.50" in shown
        assert "coefficients sum to 0.625" in shown
        assert "recently rejected: 2" in shown and "! client_1: a norm of 9" in shown
        assert "9 is 0.75" in shown

    run_pane(app, script, size)


def test_the_cursor_stays_on_its_version_while_others_arrive() -> None:
    app = PaneApp(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(versions=version_history(5)))
        await wait_until(pilot, "the newest", lambda: "version 5: 2" in screen_text(app))
        app.query_one("#agg-versions", RowList).focus()
        await pilot.press("down", "down")
        await wait_until(pilot, "an older one", lambda: "version 3: 2" in screen_text(app))
        app.pane.show(snapshot(versions=version_history(9)))
        await pilot.pause()
        assert "version 3: 2" in screen_text(app)
        await pilot.press("end")
        await wait_until(pilot, "the start", lambda: "version 0: the start" in screen_text(app))
        await pilot.press("home")
        app.pane.show(snapshot(versions=version_history(10)))
        await wait_until(pilot, "the newest", lambda: "version 10: 2" in screen_text(app))

    run_pane(app, script)


def test_a_version_can_be_selected_by_its_number() -> None:
    app = PaneApp(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(versions=version_history(300)))
        app.pane.select(7)
        await wait_until(pilot, "version 7", lambda: "version 7: 2" in screen_text(app))

    run_pane(app, script)


def lines(app: PaneApp) -> list[str]:
    """Return the lines of the weight map."""
    shown = screen_text(app).splitlines()
    start = next(i for i, line in enumerate(shown) if line.startswith("weights by version"))
    return [line for line in shown[start:] if line]


def test_the_weight_map_has_a_digit_for_every_weight() -> None:
    app = PaneApp(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(versions=version_history(3)))
        await wait_until(pilot, "the map", lambda: "client_2" in screen_text(app))
        rows = {line.split()[0]: line for line in lines(app)}
        # Versions 0 to 3; 0.25 is 3 of 9, 0.75 is 9.
        assert rows["client_0"][15:19] == "  93"
        assert rows["client_1"][15:19] == " 3 9"
        assert rows["client_2"][15:18] == " 93"

    run_pane(app, script, (100, 30))


def test_a_thousand_clients_and_versions_scroll() -> None:
    app = PaneApp(AggregationPane())
    versions = [version(n, update(f"client_{n}", task_id=f"t{n}")) for n in range(1000)]

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot(versions=versions))
        app.query_one(WeightMap).focus()
        await pilot.press("end")
        await wait_until(pilot, "the last client", lambda: "client_999 " in screen_text(app))

    run_pane(app, script, (80, 24))


def test_a_run_without_versions_shows_an_explanation() -> None:
    app = PaneApp(AggregationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot())
        await wait_until(pilot, "empty", lambda: "no version yet" in screen_text(app))
        assert "no update applied yet" in screen_text(app)

    run_pane(app, script, (80, 20))
