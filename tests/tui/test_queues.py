"""The queue pane: what waits, how fast it moves, and the adapters."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from tests.support.tui.views import Host, client, drive, look, queue, screen, until, update, version
from tui.data.reader import Snapshot
from tui.panes.queues import QueuesPane


def at(read_at: float, waiting: int, issued: int, run: str = "r") -> Snapshot:
    return look(
        read_at=read_at,
        run=run,
        clients=[client("a", "local", issued=issued, participation=issued // 2)],
        queues=[queue("tasks.local", waiting, 2), queue("updates.local", 0), queue("dead", 3, 0)],
        versions=[version(0, train_loss=None), version(1, update())],
    )


def line(host: Host, start: str) -> list[str]:
    return next((x.split() for x in screen(host).splitlines() if x.startswith(start)), [])


@pytest.mark.parametrize("size", [(80, 20), (120, 30), (200, 50)])
def test_depths_takers_and_rates_of_a_site(size: tuple[int, int]) -> None:
    host = Host(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(at(10.0, 4, 8))
        await until(pilot, "depths", lambda: line(host, "local")[1:5] == ["4", "2", "-", "-"])
        host.pane.show(at(12.0, 7, 12))
        expected = ["local", "7", "2", "+1.5", "2.00", "0", "1", "+0.0", "1.00"]
        await until(pilot, "rates", lambda: line(host, "local") == expected)
        assert "! dead letters: 3, +0.0/s" in screen(host)

    drive(host, script, size)


def test_versions_have_size_digest_losses_and_phase() -> None:
    host = Host(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(at(1.0, 0, 0))
        await until(pilot, "versions", lambda: bool(line(host, "      1")))
        row = line(host, "      1")
        assert [row[0], row[1], *row[3:7]] == ["1", "sft", "2.0", "KiB", "0001000100", "3.900"]

    drive(host, script, (80, 20))


def test_another_run_of_the_name_counts_afresh() -> None:
    host = Host(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(at(1.0, 4, 800))
        host.pane.show(at(2.0, 4, 8, run="s"))
        await until(pilot, "no rate", lambda: line(host, "local")[1:5] == ["4", "2", "-", "-"])

    drive(host, script)


def test_a_hundred_sites_scroll_and_a_run_without_queues_says_so() -> None:
    host = Host(QueuesPane())

    async def script(pilot: Pilot[None]) -> None:
        host.pane.show(look())
        await until(pilot, "none", lambda: "no queue is known" in screen(host))
        host.pane.show(look(queues=[queue(f"tasks.site-{i:03}") for i in range(100)]))
        await pilot.pause()
        await pilot.press("end")
        await until(pilot, "the last site", lambda: "site-099" in screen(host))

    drive(host, script, (80, 24))
