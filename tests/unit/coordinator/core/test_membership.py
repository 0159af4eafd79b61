"""Clients join a running federation or leave it, in the core and in the journal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from common.protocol.kinds import RejectionKind
from common.protocol.versions import VersionSummary
from coordinator.core import machine
from coordinator.core.events import (
    AcceptUpdate,
    AdmitClient,
    CloseTask,
    DiscardMessage,
    DismissClient,
    EnrolmentRequested,
    HeartbeatsRead,
    IssueTask,
    SiteRevoked,
    WorkerSignal,
)
from coordinator.core.state import Client, CoordinatorState, Plan
from coordinator.core.transition import Transition
from coordinator.storage.journal import Journal
from coordinator.storage.recovery import recover
from tests.support.virtual_federation import make_plan, make_update

SITE = "hospital-a"


def enrol(
    client: str = SITE, site: str = SITE, rows: int = 60, most: int = 1
) -> EnrolmentRequested:
    return EnrolmentRequested(client, site, {"sft": rows}, max_clients=most, max_rows=50, nonce=7)


def joined(plan: Plan, *events: EnrolmentRequested) -> CoordinatorState:
    state = CoordinatorState()
    for event in events or (enrol(),):
        state = machine.step(plan, state, event, 0.0).state
    return state


def alive(plan: Plan, state: CoordinatorState, *sites: str) -> Transition:
    return machine.step(
        plan, state, HeartbeatsRead(tuple(WorkerSignal(site, False, None) for site in sites)), 1.0
    )


def test_a_client_that_joins_gets_tasks_of_its_site() -> None:
    plan = make_plan(2, concurrency=4)
    done = machine.step(plan, CoordinatorState(), enrol(), 0.0)
    assert [a for a in done.actions if isinstance(a, AdmitClient)] == [
        # the invitation's limit
        AdmitClient(Client(SITE, SITE, MappingProxyType({"sft": 50}), shares_updates=False), 7)
    ]
    issued = [a for a in alive(plan, done.state, SITE).actions if isinstance(a, IssueTask)]
    assert [(a.task.client_id, a.site) for a in issued] == [(SITE, SITE)]


def test_the_rows_of_a_joined_client_count_up_to_the_limit_of_its_invitation() -> None:
    plan = make_plan(1, buffer_size=2, concurrency=4)
    state = alive(plan, joined(plan), SITE).state
    task = next(iter(state.tasks.values()))
    done = machine.step(plan, state, make_update(task, SITE), 2.0)
    accepted = [a.update for a in done.actions if isinstance(a, AcceptUpdate)]
    assert [update.stats.num_samples for update in accepted] == [50]  # it claims 100


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (enrol("hospital-b"), "may not speak for hospital-b"),
        (enrol("hospital-ab"), "may not speak for hospital-ab"),
        (enrol("c0", "c0"), "c0 is a client of this run already"),
        (enrol(rows=0), "no training rows"),
    ],
)
def test_a_client_that_may_not_join_is_dismissed_with_the_reason(
    event: EnrolmentRequested, reason: str
) -> None:
    done = machine.step(make_plan(2), CoordinatorState(), event, 0.0)
    dismissed = [a for a in done.actions if isinstance(a, DismissClient)]
    assert [(a.nonce, reason in a.reason) for a in dismissed] == [(7, True)]
    assert not done.state.joined


def test_a_site_may_bring_as_many_clients_as_its_invitation_allows() -> None:
    plan = make_plan(1)
    wards = [enrol(f"{SITE}.{name}", most=2) for name in "abc"]
    assert list(joined(plan, *wards).joined) == [f"{SITE}.a", f"{SITE}.b"]
    again = machine.step(plan, joined(plan, *wards), wards[0], 1.0)  # no second place for the same
    assert [type(a) for a in again.actions if not isinstance(a, IssueTask)] == [AdmitClient]


def test_a_revoked_site_loses_its_open_tasks_but_not_its_accepted_updates() -> None:
    plan = make_plan(1, buffer_size=9, concurrency=4)
    state = alive(plan, joined(plan), SITE).state
    first = next(iter(state.tasks.values()))
    state = machine.step(plan, state, make_update(first, SITE), 2.0).state
    assert state.tasks and len(state.buffer) == 1  # the next one is open
    left = machine.step(plan, state, SiteRevoked(SITE), 3.0)
    kinds = [a.rejection.kind for a in left.actions if isinstance(a, CloseTask)]
    assert kinds == [RejectionKind.REVOKED]
    assert not left.state.joined and not left.state.tasks and len(left.state.buffer) == 1
    late = machine.step(plan, left.state, make_update(next(iter(state.tasks.values())), SITE), 4.0)
    assert [a.rejection.kind for a in late.actions if isinstance(a, DiscardMessage)] == [
        RejectionKind.IDENTITY
    ]


def write(
    journal: Journal, plan: Plan, before: CoordinatorState, event: EnrolmentRequested | SiteRevoked
) -> CoordinatorState:
    done = machine.step(plan, before, event, 0.0)
    kept = [a for a in done.actions if isinstance(a, AdmitClient | DismissClient)]
    journal.write(before, done.state, kept, 0.0, frames={}, summaries={})
    return done.state


def test_the_journal_keeps_the_clients_that_joined(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run.db", {})
    journal.take_over()
    plan, state = make_plan(1), CoordinatorState()
    for event in (enrol(f"{SITE}.a", most=2), enrol(f"{SITE}.b", most=2), enrol("h", "h")):
        state = write(journal, plan, state, event)
    state = write(journal, plan, state, SiteRevoked("h"))
    assert {c.client_id: c for c in journal.joined_clients()} == dict(state.joined)
    assert [c.client_id for c in journal.joined_clients(include_left=True)] == [
        f"{SITE}.a",
        f"{SITE}.b",
        "h",
    ]
    assert write(journal, plan, state, enrol("h", "h")).joined["h"] in journal.joined_clients()


def test_a_journal_without_the_table_of_members_gets_it_when_opened(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    Journal.create(path, {}).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE member")
    assert Journal.open(path).joined_clients() == []


def test_recovery_restores_the_clients_that_joined(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "run.db", {})
    journal.take_over()
    journal.put_version(VersionSummary(version=0, phase=0, at=0.0, sha256="0" * 64, nbytes=1))
    plan = make_plan(1)
    state = write(journal, plan, CoordinatorState(), enrol())
    found = recover(plan, journal, 0.0, 60.0)
    assert found.joined == state.joined
    assert replace(found, joined=MappingProxyType({})).members(plan) == plan.clients
