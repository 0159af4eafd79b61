"""Figures of inboxes from heartbeats: one row for each client, histories and totals."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from common.protocol.heartbeat import InboxFigures
from common.store.inbox_totals import (
    MAX_BATCHES,
    InboxHistory,
    InboxTotals,
    add_up,
    extend_histories,
    newest_figures,
)
from common.store.view import FederationView
from tests.support.tui.builders import heartbeat, info
from tui.status_panel import status_panel


def row(client: str = "a", **changed: Any) -> InboxFigures:
    counts = {"waiting": 1, "learned": 2, "settled": 3, "rejected": 4}
    return InboxFigures.model_validate({"client_id": client, **counts, **changed})


def test_the_newest_batch_wins_and_then_the_newest_heartbeat() -> None:
    workers = [
        heartbeat("w1", sent_at=10.0, inbox=(row("b"), row("a", waiting=1))),
        heartbeat("w2", sent_at=20.0, inbox=(row("a", waiting=0),)),
        heartbeat("w3", sent_at=30.0, inbox=()),
    ]
    assert [(each.client_id, each.waiting) for each in newest_figures(workers)] == [
        ("a", 0),
        ("b", 1),
    ]
    late = heartbeat("w1", sent_at=5.0, inbox=(row("a", waiting=9, at=1.0),))
    assert newest_figures([*workers, late])[0].waiting == 9
    assert newest_figures([]) == ()


def test_totals_are_over_all_clients() -> None:
    found = add_up([row("a"), row("b", waiting=1000)])
    assert found == InboxTotals(clients=2, waiting=1001, learned=4, settled=6, rejected=8)
    assert found.text() == "2 clients: 1,001 waiting, 4 learned, 6 settled, 8 rejected"


def test_a_history_has_each_batch_once_up_to_a_limit() -> None:
    past = extend_histories({}, [row(at=1.0, new_after=0.5), row("b")])
    assert past == {"a": InboxHistory(1.0, (0.5,))}
    assert extend_histories(past, [row(at=1.0, new_after=0.5)]) is past
    for step in range(50):
        past = extend_histories(past, [row(at=2.0 + step, new_after=1.0 + step)])
    assert past["a"] == InboxHistory(51.0, tuple(float(n) for n in range(51 - MAX_BATCHES, 51)))


def test_status_has_a_line_for_live_input_if_there_is_any() -> None:
    def shown(*rows: InboxFigures) -> str:
        console = Console(width=100)
        view = FederationView(info(), (), (heartbeat("w", inbox=rows),), (), (), ())
        with console.capture() as captured:
            console.print(status_panel(view, 0.0))
        assert [each["client_id"] for each in view.fields()["inbox"]] == [r.client_id for r in rows]
        return captured.get()

    assert "live input" not in shown()
    assert "live input  1 client: 1 waiting, 2 learned, 3 settled, 4 rejected" in shown(row())
