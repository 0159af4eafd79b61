"""A run from its start to its end: completion, stop and resume, workers that come and go."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.protocol import Message, Site, Topology
from common.errors import StoreError
from common.protocol.feed import Event
from common.protocol.kinds import EventKind
from common.protocol.membership import Enrolment
from common.protocol.wire import pack
from common.store import view
from coordinator.core.events import LogEvent
from coordinator.ingest.ingest import Allowance
from coordinator.ingest.site_queues import FLOOD_MESSAGES, PREFETCH
from coordinator.sites.credentials import SiteAccess
from coordinator.storage import journal as journal_module
from coordinator.storage.journal import Journal
from tests.support.polled_federation import PolledFederation, check_complete


def test_a_run_without_faults_completes(federation: PolledFederation) -> None:
    outcome = federation.serve()
    check_complete(federation, outcome)
    assert not outcome.was_complete


def test_a_run_that_was_complete_is_published_again_and_changes_nothing(
    federation: PolledFederation,
) -> None:
    federation.serve()
    federation.redis.client.flushall()
    outcome = federation.serve()
    assert outcome.was_complete
    check_complete(federation, outcome)
    info = view.read(federation.store, "r").info
    assert info is not None and info.status == "finished"
    assert federation.dead_letters() == []
    assert {event.level for event in federation.events} == {"info"}


def test_a_stop_commits_the_buffer_and_a_resumed_run_continues(
    federation: PolledFederation,
) -> None:
    def stop_once_accepted() -> None:
        if any(event.kind == EventKind.ACCEPTED for event in federation.events):
            federation.stop.set()

    federation.on_turn = stop_once_accepted
    outcome = federation.serve()
    assert (outcome.complete, outcome.failed, outcome.version) == (False, False, 1)
    assert view.read(federation.store, "r").info.status == "stopped"
    federation.on_turn = lambda: None
    federation.stop.clear()
    finished = federation.serve()
    assert (finished.complete, finished.version) == (True, 3)
    journal = Journal.open(federation.directory / "run.db")
    applied = [u.task_id for summary in journal.versions() for u in summary.updates]
    assert len(applied) == len(set(applied)) == journal.receipt_counts()["accepted"]
    journal.close()


def test_a_run_reports_when_it_starts_and_stops_to_wait_for_workers(
    federation: PolledFederation,
) -> None:
    def come_and_go() -> None:
        if federation.turns == 8:
            federation.worker_is_absent = True
        if federation.turns == 60:
            federation.worker_is_absent = False

    federation.on_turn = come_and_go
    check_complete(federation, federation.serve())
    texts = [event.text for event in federation.events if event.kind == EventKind.WORKERS]
    assert [text.startswith("waiting for workers") for text in texts][-2:] == [True, False]


def test_the_view_of_the_store_shows_the_run(federation: PolledFederation) -> None:
    with pytest.raises(StoreError, match="no run 'r'"):
        view.read(federation.store, "r")
    federation.serve()
    seen = view.read(federation.store, "r")
    assert (seen.info.status, seen.info.version, seen.info.total_versions) == ("finished", 3, 3)
    assert sorted(row.client_id for row in seen.clients) == ["client_0", "client_1", "client_2"]
    assert sum(row.participation for row in seen.clients) == 6
    assert json.loads(json.dumps(seen.fields()))["info"]["accepted"] == 6


def test_adapters_that_no_task_needs_are_removed_from_the_store(
    federation: PolledFederation,
) -> None:
    federation.serve()
    blobs = federation.redis.client.keys("fccl:*:blob:*")
    assert len(blobs) <= 2


class FixedAccess(SiteAccess):
    """Access of sites that have joined already."""

    def __init__(self, *sites: str) -> None:
        self._allowances = {site: Allowance(max_clients=1, max_rows=100) for site in sites}

    def poll(self) -> list[LogEvent]:
        return []

    def allowances(self) -> Mapping[str, Allowance]:
        return self._allowances

    def broker_user(self, site: str) -> str:
        return f"r.{site}"


def kinds(federation: PolledFederation) -> list[str]:
    return [event.kind for event in federation.events]


def test_a_site_that_is_revoked_while_no_coordinator_runs_is_dismissed_at_the_next_start(
    federation: PolledFederation,
) -> None:
    federation.access = FixedAccess("a")
    site = EmbeddedBroker(federation.server, "r.a")
    enrolment = Enrolment(client_id="a", rows={"sft": 10}, worker_id="w", nonce=1)

    def enrol_then_stop() -> None:
        if federation.turns == 8:
            topology = Topology(federation.topology.run, (Site("a"),))
            site.publish_update(topology, Site("a"), Message(pack(enrolment)))
        if EventKind.JOIN in kinds(federation):
            federation.stop.set()

    federation.on_turn = enrol_then_stop
    assert not federation.serve().complete
    federation.access = FixedAccess()
    federation.stop.clear()
    federation.on_turn = lambda: None
    outcome = federation.serve()
    assert outcome.complete
    assert kinds(federation).count(EventKind.REVOKED) == 1
    assert Topology(federation.topology.run, (Site("a"),)).task_queue(Site("a")) not in (
        federation.server.queues
    )


def test_a_site_that_asks_for_client_after_client_is_muted_and_leaves_nothing_for_good(
    federation: PolledFederation,
) -> None:
    federation.access = FixedAccess("a")
    site, topology = (
        EmbeddedBroker(federation.server, "r.a"),
        Topology(federation.topology.run, (Site("a"),)),
    )

    def flood() -> None:
        if federation.turns == 8:
            for number in range(FLOOD_MESSAGES + 10):
                asked = Enrolment(client_id=f"b{number}", rows={"sft": 1}, worker_id="w", nonce=1)
                site.publish_update(topology, Site("a"), Message(pack(asked)))

    federation.on_turn = flood
    assert federation.serve().complete
    keys = federation.redis.client.keys("fccl:*:member:a:*")
    assert len(keys) <= FLOOD_MESSAGES + PREFETCH
    assert all(federation.redis.client.ttl(key) > 0 for key in keys)


def test_a_coordinator_waits_for_one_that_holds_the_journal_and_says_so(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def release(event: Event) -> None:
        if event.kind == EventKind.TAKEOVER:
            holder.rollback()

    monkeypatch.setattr(journal_module, "TRY_S", 0.05)
    federation.on_event = release
    service = federation.service()
    with closing(sqlite3.connect(federation.directory / "run.db")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        check_complete(federation, service.serve(federation.stop))
    told = [event.text for event in federation.events if event.kind == EventKind.TAKEOVER]
    assert len(told) == 1
    assert "is locked by" in told[0]


def test_a_run_in_which_nobody_makes_progress_says_why_once(federation: PolledFederation) -> None:
    details: list[str] = []

    def leave_after_a_task() -> None:
        kinds = [event.kind for event in federation.events]
        federation.worker_is_absent = EventKind.ISSUED in kinds
        if EventKind.STALLED in kinds:
            details.append(view.read(federation.store, "r").info.detail)
        if len(details) == 20:
            federation.stop.set()

    federation.on_turn = leave_after_a_task
    federation.serve()
    (told,) = (event.text for event in federation.events if event.kind == EventKind.STALLED)
    assert told.startswith("no update since")
    assert told.endswith("waits for site local, which is silent")
    assert told in details[-1]
