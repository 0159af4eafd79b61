"""Upgrades: a run keeps the schema version with which it began, whoever serves it."""

from __future__ import annotations

import hashlib
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from common.protocol import codec
from common.protocol.kinds import RejectionKind
from common.protocol.tasks import TrainTask
from common.protocol.tensor_table import make_table
from common.protocol.updates import Update
from common.protocol.wire import unpack
from common.run_directory.recorded_run import read_config, read_run
from coordinator.storage.journal import Journal
from evaluation.verification.verify import verify
from tests.chaos.ledger import check
from tests.support import schema1
from tests.support.coordinator_records import START
from tests.support.polled_federation import (
    Crash,
    PolledFederation,
    answer,
    check_complete,
    delta,
    update,
)
from tests.support.recorded_releases import RELEASES, SCHEMA1, SITE, unpack_release
from tests.support.virtual_federation import make_stats


@pytest.fixture
def older(tmp_path: Path, small_chunks: None) -> PolledFederation:
    """Return a federation whose run the release before schema 2 began."""
    federation = PolledFederation(tmp_path, keep_updates=True)
    schema1.begin_run(federation.directory, START)
    return federation


def old_answer(task: bytes) -> bytes:
    """Return what a worker of the older release answers; fail if it cannot read the task."""
    kind, fields, _ = schema1.read(task)
    assert kind == "TrainTask"
    return schema1.update(fields, make_stats().fields(), delta(fields["task_id"]))


def test_an_older_run_is_completed_by_workers_of_both_releases(older: PolledFederation) -> None:
    turns = cycle([True, False])
    schemas = set()

    def respond(task: bytes) -> bytes:
        found = old_answer(task) if next(turns) else answer(task)
        schemas.add((task[4], found[4]))
        return found

    older.answer = respond
    check_complete(older, older.serve())
    assert schemas == {(1, 1)}
    read_run(older.directory).tensors(3)  # the journal's digest is that of a frame of schema 1
    verified = verify(older.directory)
    assert verified.right and verified.complete
    assert check(older.directory).problems == ()


def test_what_an_older_run_publishes_stays_readable_for_older_workers(
    older: PolledFederation,
) -> None:
    older.answer = old_answer
    older.serve()
    run, opened = older.topology.run, older.open()
    model = older.store.get_model(run)
    assert model is not None
    frame = older.store.get_blob(run, model.adapter.sha256, model.adapter.nbytes)
    assert frame is not None
    kind, fields, data = schema1.read(frame)
    theta = schema1.decode(fields["tensors"], data)
    assert (kind, fields["version"], theta.keys()) == ("Adapter", 3, START.keys())
    assert all(np.array_equal(theta[name], opened.versions.read(3)[name]) for name in theta)
    raw = older.redis.client.get(f"fccl:{run}:model")
    assert schema1.read(raw)[0] == "CurrentModel"
    assert schema1.read(older.redis.client.get(f"fccl:{run}:info"))[0] == "RunInfo"
    opened.journal.close()


def test_updates_of_an_older_coordinator_are_applied_by_its_successor(
    older: PolledFederation,
) -> None:
    """The spool, the outbox and the open tasks of a run are of schema 1 when it is upgraded."""
    older.answer = old_answer

    def crash_with_an_update_in_the_spool() -> None:
        if any(event.kind == "accepted" for event in older.events):
            raise Crash

    older.on_turn = crash_with_an_update_in_the_spool
    with pytest.raises(Crash):
        older.serve()
    assert [path.read_bytes()[4] for path in (older.directory / "spool").iterdir()] == [1]
    journal = Journal.open(older.directory / "run.db")
    assert journal.rows("SELECT COUNT(*) FROM task WHERE open")[0][0]
    journal.close()
    older.on_turn = lambda: None
    older.answer = answer
    check_complete(older, older.serve())


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("release", RELEASES)
def test_a_recorded_run_is_continued_to_its_end(tmp_path: Path, release: str) -> None:
    directory = unpack_release(release, tmp_path)
    config = read_config(directory)
    run = config.run.model_copy(update={"dir": str(directory.parent)})
    recorded = PolledFederation(tmp_path, existing=config.model_copy(update={"run": run}))
    recorded.now = read_run(directory).ended_at
    waiting = {path.name for path in (directory / "spool").iterdir()}
    assert waiting

    def respond(frame: bytes) -> bytes:
        task, _ = unpack(TrainTask, frame)
        assert frame[4] == (1 if release in SCHEMA1 else 2)
        theta = recorded.fetch(task.adapter)
        layout, data = codec.encode(task.update_codec, {n: v * 0.01 for n, v in theta.items()})
        tabled = make_table(task.update_codec, layout)
        return update(
            task,
            codec=task.update_codec,
            layout=None if task.layout is None else layout.digest,
            tensors=tabled if task.layout is None else None,
            sha256=codec.digest(data),
            data=data,
        )

    def stop_after_some_versions() -> None:
        if release == SITE and sum(event.kind == "version" for event in recorded.events) > 1:
            recorded.stop.set()  # its plan has 60

    recorded.answer, recorded.on_turn = respond, stop_after_some_versions
    before = read_run(directory).versions[-1].version
    outcome = recorded.serve()
    assert outcome.complete == (release != SITE)
    found = read_run(directory)
    last = found.versions[-1].version
    assert before + 2 <= last == (last if release == SITE else found.total_versions)
    applied = [u.task_id for summary in found.versions for u in summary.updates]
    assert len(applied) == len(set(applied))
    assert set(applied) == {update.task_id for update in found.updates}
    found.tensors(last)
    assert not any((directory / "spool").iterdir())


def test_a_new_run_rejects_updates_of_schema_1(federation: PolledFederation) -> None:
    answers = 0

    def respond(task: bytes) -> bytes:
        nonlocal answers
        answers += 1
        return answer(task) if answers > 1 else tabled(task)

    federation.answer = respond
    check_complete(federation, federation.serve())
    rejected = [event for event in federation.events if event.kind == "rejected"]
    assert [event.refs["rejection"] for event in rejected] == [RejectionKind.TENSORS]


def tabled(frame: bytes) -> bytes:
    """Return an update with a table to a task that has a layout."""
    task, _ = unpack(TrainTask, frame)
    assert frame[4] == 2 and task.layout is not None
    found = update(task.model_copy(update={"layout": None}))
    assert unpack(Update, found)[0].tensors is not None
    return found


def test_every_task_of_a_new_run_names_the_layout_of_its_adapter(
    federation: PolledFederation,
) -> None:
    named = set()

    def respond(task: bytes) -> bytes:
        named.add(unpack(TrainTask, task)[0].layout)
        return answer(task)

    federation.answer = respond
    federation.serve()
    text = "".join(f"{name} {'x'.join(map(str, START[name].shape))}\n" for name in sorted(START))
    assert named == {hashlib.sha256(text.encode()).hexdigest()}


def test_the_table_of_the_older_release_is_the_one_that_is_made_now() -> None:
    entries, data = schema1.encode(START)
    sent, _ = unpack(Update, schema1.update({
        "task_id": "t000001", "attempt": 1, "client_id": "c", "phase": 0, "base_version": 0,
    }, make_stats().fields(), START))  # fmt: skip
    layout, encoded = codec.encode("fp32", START)
    assert [entry.fields() for entry in make_table("fp32", layout)] == entries
    assert (sent.tensors, encoded) == (make_table("fp32", layout), data)
