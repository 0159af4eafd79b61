"""A coordinator that crashes or is replaced loses nothing and applies nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from common.errors import FencedError, RunError
from common.protocol.tensors import Tensors
from coordinator.storage import journal_rows, retention, run
from coordinator.storage.journal import Journal
from coordinator.storage.jsonl import JsonlFiles
from coordinator.storage.spool import Spool
from coordinator.storage.step_writer import StepWriter
from coordinator.storage.versions import Versions
from tests.support.polled_federation import (
    Crash,
    PolledConsumer,
    PolledFederation,
    check_complete,
    check_versions,
    crash_at,
)

POINTS: dict[str, tuple[object, str, bool]] = {
    # name: (class or module, function, crash after the call instead of before it)
    "chunk delivered": (Spool, "write", False),
    "chunk written": (Spool, "write", True),
    "chunk row": (Journal, "put_chunk", True),
    "before the step's transaction": (Journal, "write", False),
    "inside the transaction, update accepted": (journal_rows, "put_accepted", True),
    "inside the transaction, receipt written": (journal_rows, "put_receipt", True),
    "inside the transaction, version row": (journal_rows, "put_version", True),
    "inside the transaction, task issued": (journal_rows, "put_task", True),
    "before the version is written": (Versions, "_write", False),
    "version written, not staged": (Versions, "_write", True),
    "version staged, before the transaction": (Versions, "stage", True),
    "after the transaction": (Journal, "write", True),
    "after the transaction, before the version gets its number": (Versions, "place", False),
    "version has its number": (Versions, "place", True),
    "before a start sweeps": (Versions, "sweep", False),
    "before the spool is cleaned": (Spool, "drop", False),
    "before a kept update is moved": (Spool, "move", False),
    "a kept update is moved": (Spool, "move", True),
    "before versions are retained": (Versions, "retain", False),
    "before the JSON lines files": (JsonlFiles, "append", False),
    "before the outbox is published": (EmbeddedBroker, "publish_task", False),
    "published, not marked": (Journal, "mark_sent", False),
    "marked": (Journal, "mark_sent", True),
    "before the ack": (PolledConsumer, "ack", False),
    "after the ack": (PolledConsumer, "ack", True),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_survives_crashes_at_every_point(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    kind, method, after = POINTS[point]
    federation = PolledFederation(tmp_path, keep_updates=method != "drop")
    crash_at(monkeypatch, kind, method, after=after, calls={0, 1, 3, 6, 10, 15})
    outcome, crashes = federation.serve_through_crashes()
    monkeypatch.undo()
    assert crashes >= 2
    check_complete(federation, outcome)
    assert federation.dead_letters() == []


@pytest.mark.parametrize("seed", range(8))
def test_a_run_survives_crashes_at_random_points(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random, budget = Random(seed), iter(range(15))
    federation = PolledFederation(tmp_path, seed, keep_updates=bool(seed % 2))
    for kind, method, after in POINTS.values():
        if not after:
            crashing = _crashing(getattr(kind, method), random.random, budget)
            monkeypatch.setattr(kind, method, crashing)
    outcome, crashes = federation.serve_through_crashes()
    monkeypatch.undo()
    assert crashes >= 1
    check_complete(federation, outcome)


def _crashing(
    original: Callable[..., Any], draw: Callable[[], float], budget: Iterator[int]
) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if draw() < 0.1 and next(budget, None) is not None:
            raise Crash
        result = original(*args, **kwargs)
        if draw() < 0.05 and next(budget, None) is not None:
            raise Crash
        return result

    return wrapped


def test_a_replaced_coordinator_acks_and_publishes_nothing(federation: PolledFederation) -> None:
    successors: list[run.Run] = []

    def replace_it() -> None:
        if not successors and federation.events:  # tasks are out, their updates are on the queue
            successors.append(federation.open())
            successors[0].journal.take_over()

    federation.on_turn = replace_it
    with pytest.raises(FencedError):
        federation.serve()
    federation.on_turn = lambda: None
    check_complete(federation, federation.service(successors[0]).serve(federation.stop))


def test_an_update_that_is_sent_again_under_the_name_of_a_kept_one_does_not_replace_it(
    tmp_path: Path, small_chunks: None
) -> None:
    federation = PolledFederation(tmp_path, keep_updates=True)
    assert federation.serve().complete
    opened = federation.open()
    upload, file = next(iter(opened.journal.kept_updates().items()))
    kept = (federation.directory / "updates" / file).read_bytes()
    opened.journal.take_over()
    Spool(federation.directory / "spool").write(upload, 0, b"forged")
    opened.journal.put_chunk(upload, 0, 6, "local", 1.0)
    federation.service(opened).serve(federation.stop)
    assert (federation.directory / "updates" / file).read_bytes() == kept


def test_a_run_whose_updates_cannot_be_kept_goes_on_once_they_can(
    tmp_path: Path, small_chunks: None
) -> None:
    federation = PolledFederation(tmp_path, keep_updates=True)
    (federation.directory / "updates").touch()
    with pytest.raises(RunError, match="updates: File exists; check the path, then --resume"):
        federation.serve()
    (federation.directory / "updates").unlink()
    check_complete(federation, federation.serve())


def numbered(federation: PolledFederation) -> dict[str, bytes]:
    """Return the content of every file of the placed versions."""
    versions = federation.directory / "versions"
    return {str(p): p.read_bytes() for p in versions.glob("[0-9]*/*")}


def replaced_at(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, after: bool, act: Callable[[], None]
) -> None:
    """Pause the first coordinator that calls a function while `act` replaces it."""
    original, waiting = getattr(where, name), [act]

    def paused(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs) if after else None
        if waiting:
            waiting.pop()()
        return result if after else original(*args, **kwargs)

    monkeypatch.setattr(where, name, paused)


@pytest.mark.parametrize("same", [True, False])
def test_a_coordinator_replaced_before_its_transaction_leaves_its_successors_version_alone(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    seen: list[dict[str, bytes]] = []
    make = Versions.stage

    def successor() -> None:
        monkeypatch.setattr(Versions, "stage", make)
        federation.on_turn = lambda: (
            federation.stop.set()
            if any(event.kind == "version" for event in federation.events)
            else None
        )
        assert federation.serve().version >= 1
        federation.on_turn = lambda: None
        federation.stop.clear()
        seen.append(numbered(federation))

    def other(self: Versions, version: int, tensors: Tensors, state: bytes) -> Any:
        changed = tensors if same else {n: t + 1 for n, t in tensors.items()}
        return make(self, version, changed, state)

    monkeypatch.setattr(Versions, "stage", other)
    replaced_at(monkeypatch, Versions, "stage", after=True, act=successor)
    with pytest.raises(FencedError):
        federation.serve()
    assert any("000001" in path for path in seen[0])
    assert numbered(federation) == seen[0]
    check_versions(federation)
    check_complete(federation, federation.serve())


PAUSES = {
    "reading updates": (Spool, "each_tensor", False),
    "before a version is written": (Versions, "_write", False),
    "version written, not staged": (Versions, "_write", True),
    "version staged": (Versions, "stage", True),
    "before the version gets its number": (Versions, "place", False),
    "version has its number": (Versions, "place", True),
    "before kept updates are moved": (StepWriter, "_remove_applied_updates", False),
    "before versions are retained": (retention, "versions_to_keep", True),
    "before a start sweeps": (Journal, "fenced", False),
}


@pytest.mark.parametrize("point", PAUSES)
def test_a_coordinator_that_wakes_after_its_successor_finished_changes_no_version(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    federation = PolledFederation(tmp_path, keep_updates=True)
    seen: list[dict[str, bytes]] = []

    def successor() -> None:
        assert federation.serve().complete
        seen.append(numbered(federation))

    replaced_at(monkeypatch, *PAUSES[point], successor)
    with pytest.raises(FencedError):
        federation.serve()
    assert numbered(federation) == seen[0]
    check_complete(federation, federation.serve())


def test_a_version_journaled_after_the_run_was_opened_and_before_it_was_taken_over_is_placed(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = federation.open()

    def successor() -> None:
        check_complete(federation, federation.service(opened).serve(federation.stop))

    replaced_at(monkeypatch, Versions, "place", False, successor)
    with pytest.raises(FencedError):
        federation.serve()
    check_versions(federation)


def test_a_version_that_was_not_placed_gets_its_number_when_the_run_is_opened(
    federation: PolledFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise Crash

    replaced_at(monkeypatch, Versions, "place", False, crash)
    with pytest.raises(Crash):
        federation.serve()
    monkeypatch.undo()
    assert not (federation.directory / "versions" / "000001").exists()
    check_versions(federation)  # opens the run
