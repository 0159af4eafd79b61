"""Queues pane: depths, rates, dead letters and versions."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from tests.support.tui.builders import client, queue, snapshot, update, version
from tests.support.tui.pilot import PaneApp, run_pane, screen_text, wait_until
from tui.data.reader import Snapshot
from tui.panes.queues import QueuesPane


def at(read_at: float, waiting: int, issued: int, run: str = "r") -> Snapshot:
    return snapshot(
        read_at=read_at,
        run=run,
        clients=[client("a", "local", issued=issued, participation=issued // 2)],
        queues=[queue("tasks.local", waiting, 2), queue("updates.local", 0), queue("dead", 3, 0)],
        versions=[version(0, train_loss=None), version(1, update())],
    )


def line(app: PaneApp, start: str) -> list[str]:
    return next((x.split() for x in screen_text(app).splitlines() if x.startswith(start)), [])


@pytest.mark.parametrize("size", [(80, 20), (120, 30), (200, 50)])
def test_depths_consumers_and_rates_of_a_site_are_shown(size: tuple[int, int]) -> None:
    app = PaneApp(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(at(10.0, 4, 8))
        await wait_until(pilot, "depths", lambda: line(app, "local")[1:5] == ["4", "2", "-", "-"])
        app.pane.show(at(12.0, 7, 12))
        expected = ["local", "7", "2", "+1.5", "2.00", "0", "1", "+0.0", "1.00"]
        await wait_until(pilot, "rates", lambda: line(app, "local") == expected)
        assert "! dead letters: 3, +0.0/s" in screen_text(app)

    run_pane(app, script, size)


def test_versions_are_shown_with_size_digest_losses_and_phase() -> None:
    app = PaneApp(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(at(1.0, 0, 0))
        await wait_until(pilot, "versions", lambda: bool(line(app, "      1")))
        row = line(app, "      1")
        assert [row[0], row[1], *row[3:7]] == ["1", "sft", "2.0", "KiB", "0001000100", "3.900"]

    run_pane(app, script, (80, 20))


def test_another_run_of_the_same_name_starts_without_rates() -> None:
    app = PaneApp(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(at(1.0, 4, 800))
        app.pane.show(at(2.0, 4, 8, run="s"))
        await wait_until(pilot, "no rate", lambda: line(app, "local")[1:5] == ["4", "2", "-", "-"])

    run_pane(app, script)


def test_a_hundred_sites_scroll_and_a_run_without_queues_shows_an_explanation() -> None:
    app = PaneApp(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(snapshot())
        await wait_until(pilot, "none", lambda: "no queues known" in screen_text(app))
        app.pane.show(snapshot(queues=[queue(f"tasks.site-{i:03}") for i in range(100)]))
        await pilot.pause()
        await pilot.press("end")
        await wait_until(pilot, "the last site", lambda: "site-099" in screen_text(app))

    run_pane(app, script, (80, 24))
