"""Rows of the store: for whom a run waits, and evaluations at the sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from common.clock import format_time
from common.store import view
from common.store.view import RunInfo
from coordinator.core.events import AcceptEvaluation, CloseRound, OpenRound
from coordinator.core.state import Client, CoordinatorState, OpenEvaluation
from coordinator.publish import rows
from tests.support.evaluation_records import evaluation, put_evaluations, put_rounds, round_of
from tests.support.polled_federation import PolledFederation
from tests.support.virtual_federation import make_plan

NOW = 10_000.0
LEASE = 60.0


def info(tmp_path: Path, seen_at: Mapping[str, float], least: int) -> RunInfo:
    """Return the status of a run with clients c0 to c2, each at a site of its name."""
    clients = {name: Client(name, name, {"sft": 9}) for name in ("c0", "c1", "c2")}
    plan = replace(make_plan(clients, lease_s=LEASE), min_clients=least)
    run = replace(PolledFederation(tmp_path).open(), plan=plan)
    workers = {site: 1 for site, at in seen_at.items() if at == NOW}
    state = CoordinatorState(
        store_up=True,
        seen_at=MappingProxyType(dict(seen_at)),
        workers_by_site=MappingProxyType(workers),
    )
    return rows.run_info(run, state, 0.0, NOW)


def test_a_run_below_its_minimum_says_for_whom_it_waits(tmp_path: Path) -> None:
    silent_since = NOW - 2 * LEASE
    found = info(tmp_path, {"c0": NOW, "c1": silent_since}, 3)
    assert (found.status, found.live_clients, found.min_clients) == ("waiting", 1, 3)
    since = format_time(silent_since)
    expected = f"waiting for 2 clients: c1 is silent since {since}, c2 has not been seen"
    assert found.detail == expected


def test_sites_that_have_yet_to_join_are_counted(tmp_path: Path) -> None:
    found = info(tmp_path, {"c0": NOW, "c1": NOW, "c2": NOW - 1}, 5)
    assert found.detail == "waiting for 2 clients: 2 yet to join"


def test_a_run_with_enough_live_clients_runs(tmp_path: Path) -> None:
    found = info(tmp_path, {"c0": NOW, "c1": NOW - 1}, 2)
    assert (found.status, found.live_clients) == ("running", 2)
    assert found.detail == "1 of 3 clients served"


@pytest.mark.usefixtures("small_chunks")
def test_evaluations_of_the_journal_reach_viewers(tmp_path: Path) -> None:
    federation = PolledFederation(tmp_path)
    run = federation.open()
    put_evaluations(run.journal._db, [evaluation("client_0", 0, 2.0)])
    put_rounds(run.journal._db, [round_of(0)])
    run.journal.close()
    assert federation.serve().complete
    (row,) = view.read(federation.store, "r").evaluations
    assert (row.version, row.open) == (0, False)
    assert row.value == pytest.approx(2.0)


@pytest.mark.usefixtures("small_chunks")
def test_the_running_contribution_of_a_served_run_is_in_its_view(tmp_path: Path) -> None:
    federation = PolledFederation(tmp_path)
    assert federation.serve().complete
    seen = view.read(federation.store, "r")
    assert sum(row.updates for row in seen.contributions) == 6
    assert sum(row.share for row in seen.contributions) == pytest.approx(1.0)
    assert seen.fields()["contributions"][0]["source"] == "train"


def test_scores_of_updates_do_not_change_the_evaluations_of_versions() -> None:
    result = evaluation("c", 1, 2.0)

    def accepted(candidate: str) -> AcceptEvaluation:
        opened = OpenEvaluation("e1", "c", 1, 0, 0.0, 9.0, candidate=candidate)
        return AcceptEvaluation(opened, result)  # type: ignore[arg-type]

    assert not rows.changes_evaluations([accepted("t1")])
    assert rows.changes_evaluations([accepted("")])
    assert rows.changes_evaluations([OpenRound(1, 0)])
    assert rows.changes_evaluations([CloseRound(1, 0)])
