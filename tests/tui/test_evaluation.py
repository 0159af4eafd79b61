"""Evaluation pane: versions on the clients' own rows, and contributions; and its commands."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from textual.pilot import Pilot

from common.evaluation.contributions import contribution_rows
from common.evaluation.rows import evaluation_rows
from common.protocol.evaluations import EvaluatorFigures
from common.run_directory.recorded_run import read_run
from tests.support.evaluation_records import evaluation, put_evaluations, put_rounds, round_of
from tests.support.tui.builders import client, snapshot, version_history
from tests.support.tui.pilot import PaneApp, StyledPaneApp, run_pane, screen_text, wait_until
from tests.support.tui.recordings import record
from tui.app import _target
from tui.data.reader import Snapshot
from tui.data.recorded_views import view_at
from tui.panes.evaluation import EvaluationPane
from tui.status_panel import status_panel
from tui.widgets.row_list import RowList


def evaluated_run(**changed: object) -> Snapshot:
    """Return a run whose versions 0 and 3 were evaluated, the latter not yet by client_2."""
    names = ("client_0", "client_1", "client_2")
    records = [evaluation(name, 0, 3.0 + i, rows=10) for i, name in enumerate(names)]
    records += [evaluation(name, 3, 2.0 + i, rows=10) for i, name in enumerate(names[:2])]
    rounds = [round_of(0, *names), round_of(3, *names, at=150.0, closed_at=None)]
    shown = snapshot(
        clients=[client(name) for name in names], versions=version_history(3), **changed
    )
    assert shown.view is not None
    view = replace(
        shown.view,
        evaluations=evaluation_rows(records, rounds, ["sft"]),
        contributions=contribution_rows(shown.view.versions, ["sft"], "train"),
    )
    return replace(shown, view=view)


def printed(shown: Snapshot) -> str:
    assert shown.view is not None
    console = Console(width=120)
    with console.capture() as captured:
        console.print(status_panel(shown.view, 1000.0))
    return captured.get()


@pytest.mark.parametrize("size", [(80, 20), (120, 30)])
def test_versions_and_clients_are_shown_and_the_cursor_chooses_the_version(
    size: tuple[int, int],
) -> None:
    app = StyledPaneApp(EvaluationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(evaluated_run())
        await wait_until(pilot, "the newest", lambda: "version 3, nats" in screen_text(app))
        shown = screen_text(app)
        assert "4.000 █▁ 2.500; ★ version 3" in shown
        assert "3.000 client_1" in shown and "2/3 open" in shown
        app.query_one("#eval-versions", RowList).focus()
        await pilot.press("down")
        await wait_until(pilot, "version 0", lambda: "version 0, nats" in screen_text(app))
        assert "5.000" in screen_text(app)

    run_pane(app, script, size)


def test_a_run_that_is_not_evaluated_at_the_sites_shows_its_contributions() -> None:
    app = PaneApp(EvaluationPane())
    shown = evaluated_run()
    assert shown.view is not None
    shown = replace(shown, view=replace(shown.view, evaluations=()))

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(shown)
        await wait_until(pilot, "a client", lambda: "client_0" in screen_text(app))
        assert "no version was evaluated at the sites" in screen_text(app)
        assert "scores from 'train'" in screen_text(app)

    run_pane(app, script)


def test_status_shows_evaluations_contributions_and_who_is_silent() -> None:
    shown = evaluated_run(min_clients=2, live_clients=1, open_evaluations=1)
    assert shown.view is not None
    silent = client("client_2", live=False, seen_at=5.0)
    never = client("client_1", live=False)
    view = replace(shown.view, clients=(*shown.view.clients[:1], never, silent))
    text = printed(replace(shown, view=view))
    assert "1 of 1 client; minimum 2; client_1 not seen yet, client_2 silent since" in text
    assert "version 3 is best: 2.500 nats per token; 1 evaluation open" in text
    assert "★ version 3 2.500 3.000 client_1 1.000 20 2/3 open client_2" in " ".join(text.split())
    assert "contribution of each client: 1 is average" in text


def test_figures_of_plug_in_evaluators_are_shown() -> None:
    shown = evaluated_run()
    assert shown.view is not None
    figures = [
        EvaluatorFigures(version=v, at=9.0, evaluator="exam", figures={"acc": v / 8}, seconds=1.0)
        for v in (0, 3)
    ]
    shown = replace(shown, view=replace(shown.view, evaluators=tuple(figures)))
    text = " ".join(printed(shown).split())
    assert "figures of evaluator exam version acc 0 0.000 3 0.375" in text
    app = PaneApp(EvaluationPane())

    async def script(pilot: Pilot[None]) -> None:
        app.pane.show(shown)
        line = "exam, version 3: acc 0.375"
        await wait_until(pilot, "the newest", lambda: line in screen_text(app))
        app.query_one("#eval-versions", RowList).focus()
        await pilot.press("down")
        await wait_until(pilot, "the first", lambda: "exam, version 0" in screen_text(app))

    run_pane(app, script)


def test_the_status_of_an_earlier_release_has_none_of_these_lines() -> None:
    text = printed(snapshot())
    first_words = {line.split()[0] for line in text.splitlines()}
    assert not first_words & {"live", "evaluated", "contribution", "scores"}


def test_a_replay_shows_evaluations_as_they_arrived(tmp_path: Path) -> None:
    directory = record(tmp_path / "r")
    with sqlite3.connect(directory / "run.db") as db:
        put_evaluations(db, [evaluation("a", 0, 3.0, at=103.0), evaluation("b", 0, 4.0, at=112.0)])
        put_rounds(db, [round_of(0, at=100.0, closed_at=112.0)])
        db.execute("INSERT INTO score VALUES ('t1', 'federated', 0.1, 2.0, 50, 111.0)")
    db.close()
    run = read_run(directory)
    (early,) = view_at(run, 105.0).evaluations
    assert (early.value, early.open, early.missing) == (pytest.approx(3.0), True, ("b",))
    late = view_at(run, 120.0)
    assert (late.evaluations[0].open, late.evaluations[0].missing) == (False, ())
    assert (late.info.scores.updates, late.info.scores.nbytes) == (1, 50)
    assert [row.client_id for row in late.contributions] == ["a"]
    assert view_at(run, 101.0).contributions == ()


def test_the_minimum_is_lowered_to_the_live_clients_only_where_they_are_too_few() -> None:
    def target(live: int | None, least: int | None) -> str | None:
        shown = snapshot(live_clients=live, min_clients=least)
        assert shown.view is not None
        return _target("min-clients", None, shown.view.info)

    assert target(2, 3) == "2"
    assert [target(3, 3), target(0, 2), target(None, None)] == [None, None, None]
