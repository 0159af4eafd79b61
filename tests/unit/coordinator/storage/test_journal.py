"""Journal: one transaction per step, fencing, outbox, chunks, and damaged files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import pytest

from common.errors import FencedError, RunError
from common.protocol.kinds import EventKind, RejectionKind
from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    AdmitClient,
    CloseEvaluation,
    CloseRound,
    CloseTask,
    CommitVersion,
    IssueEvaluation,
    IssueTask,
    LogEvent,
    OpenRound,
    Rejection,
)
from coordinator.core.state import (
    BufferedUpdate,
    Client,
    ClientState,
    CoordinatorState,
    OpenEvaluation,
    OpenTask,
)
from coordinator.storage.journal import Journal
from coordinator.storage.recovery import recover
from tests.support.coordinator_records import version_summary
from tests.support.virtual_federation import make_plan, make_result, make_stats

PLAN = make_plan(2, buffer_size=1)
PHASE_OVER = Rejection(RejectionKind.PHASE_OVER, "phase over")
STALE = Rejection(RejectionKind.STALE, "too old")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path, {"run_id": "r1"})
    journal.put_version(version_summary(0))
    journal.take_over()
    yield journal
    journal.close()


def write(journal: Journal, *actions: Action, now: float = 1.0, **more: object) -> None:
    frames = {a.task.task_id: b"frame" for a in actions if isinstance(a, IssueTask)}
    issued = [a.evaluation.task_id for a in actions if isinstance(a, IssueEvaluation)]
    frames |= dict.fromkeys(issued, b"frame")
    summaries = {
        a.version: version_summary(a.version, now) for a in actions if isinstance(a, CommitVersion)
    }
    state = CoordinatorState()
    journal.write(state, state, actions, now, frames=frames, summaries=summaries, **more)  # type: ignore[arg-type]


def task(number: int = 1, attempts: int = 1) -> OpenTask:
    return OpenTask(f"t{number:06d}", "c0", 0, number, (0,) * attempts, 1.0, 61.0)


def buffered(number: int = 1) -> BufferedUpdate:
    return BufferedUpdate(
        f"t{number:06d}", 1, "c0", "w0", 0, make_stats(), 0.5, 100, f"local.{number}"
    )


# fencing


def test_a_replaced_coordinator_can_write_nothing(journal: Journal, path: Path) -> None:
    successor = Journal.open(path)
    assert successor.take_over() == journal.epoch + 1
    for attempt in (
        lambda: write(journal, IssueTask(task(), "local")),
        lambda: journal.put_version(version_summary(1)),
        lambda: journal.put_chunk("local.x", 0, 1, "local", 1.0),
        lambda: journal.drop_chunks("local.x"),
        lambda: journal.mark_sent([1]),
        journal.check_epoch,
    ):
        with pytest.raises(FencedError, match="another coordinator has taken over"):
            attempt()
    assert successor.outbox() == []
    assert successor.unfinished_uploads() == {}
    assert len(successor.versions()) == 1
    write(successor, IssueTask(task(), "local"))
    assert len(successor.outbox()) == 1
    successor.close()


def test_a_task_of_an_older_epoch_stays_open(journal: Journal, path: Path) -> None:
    write(journal, IssueTask(task(), "local"))
    successor = Journal.open(path)
    successor.take_over()
    assert list(recover(PLAN, successor, 0.0, 0.0).tasks) == ["t000001"]
    successor.close()


# one transaction


def test_a_step_is_written_completely_or_not_at_all(journal: Journal) -> None:
    write(journal, CloseTask("t000009", "c0", PHASE_OVER))
    with pytest.raises(RunError):  # the second receipt of one task breaks the last action
        write(
            journal,
            IssueTask(task(), "local"),
            LogEvent("info", EventKind.COMMAND, "y"),
            CloseTask("t000009", "c0", STALE),
        )
    assert journal.outbox() == []
    assert journal.events(9) == []
    assert recover(PLAN, journal, 0.0, 0.0).tasks == {}
    write(journal, LogEvent("info", EventKind.COMMAND, "next"))
    assert [event.text for event in journal.events(9)] == ["next"]


def test_the_first_receipt_of_a_task_is_final(journal: Journal) -> None:
    write(journal, IssueTask(task(), "local"), AcceptUpdate(buffered(), 2.0))
    with pytest.raises(RunError):
        write(journal, AcceptUpdate(buffered(), 2.0))
    receipt = journal.receipt("t000001")
    assert receipt is not None and (receipt.state, receipt.attempt) == ("accepted", 1)
    assert journal.receipt("t000002") is None


def test_an_accepted_update_waits_until_its_commit(journal: Journal) -> None:
    write(
        journal, IssueTask(task(), "local"), AcceptUpdate(buffered(), 2.0), drop_chunks=["local.1"]
    )
    assert journal.unapplied_uploads() == {"local.1"}
    state = recover(PLAN, journal, 9.0, 0.0)
    assert state.buffer == (buffered(),)
    assert state.norms == (1.0,)  # clipped
    assert state.tasks == {}


# outbox


def test_a_message_stays_in_the_outbox_until_it_is_sent(journal: Journal, path: Path) -> None:
    write(journal, IssueTask(task(1), "local"), IssueTask(task(2), "local"))
    other = Journal.open(path)
    other.take_over()
    first, second = other.outbox()
    assert (first.task_id, first.site, first.frame) == ("t000001", "local", b"frame")
    other.mark_sent([first.id])
    assert other.outbox() == [second]
    other.close()


def test_the_message_of_a_closed_task_is_not_sent(journal: Journal) -> None:
    write(journal, IssueTask(task(1), "local"), IssueTask(task(2), "local"))
    write(journal, CloseTask("t000001", "c0", PHASE_OVER))
    assert [entry.task_id for entry in journal.outbox()] == ["t000002"]


def test_every_attempt_puts_a_message_into_the_outbox(journal: Journal) -> None:
    write(journal, IssueTask(task(), "local"))
    write(journal, IssueTask(task(attempts=2), "local"))
    assert [entry.task_id for entry in journal.outbox()] == ["t000001"] * 2
    assert recover(PLAN, journal, 0.0, 0.0).tasks["t000001"].attempt == 2


# chunks


def test_a_chunk_that_comes_twice_counts_once(journal: Journal) -> None:
    assert journal.put_chunk("local.x", 0, 8, "local", 1.0) == 1
    assert journal.put_chunk("local.x", 0, 8, "local", 2.0) == 1
    assert journal.put_chunk("local.x", 2, 8, "local", 3.0) == 2
    assert journal.unfinished_uploads() == {"local.x": ("local", 1.0)}
    journal.drop_chunks("local.x")
    assert journal.unfinished_uploads() == {}


# files


def test_a_client_has_one_row_that_changes(journal: Journal) -> None:
    for issued in (1, 2):
        after = CoordinatorState().with_client(
            "c0", ClientState(issued=issued, last_stats=make_stats())
        )
        journal.write(CoordinatorState(), after, (), 1.0, frames={}, summaries={})
    assert recover(PLAN, journal, 0.0, 0.0).clients == {
        "c0": ClientState(issued=2, last_stats=make_stats())
    }


@pytest.mark.parametrize("content", [b"", b"no database at all" * 99, b"SQLite format 3\0garbage"])
def test_a_file_that_is_no_journal_is_named_in_one_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"run\.db") as caught:
        Journal.open(path)
    assert "\n" not in str(caught.value)


def test_opening_a_missing_journal_creates_none(path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        Journal.open(path)
    assert not path.exists()


def test_a_damaged_page_is_a_run_error(journal: Journal, path: Path) -> None:
    for number in range(200):
        write(journal, LogEvent("info", EventKind.COMMAND, "y" * 200, (("n", number),)))
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(RunError, match=r"run\.db"):
        recover(PLAN, Journal.open(path), 0.0, 0.0)


def test_a_version_that_another_release_wrote_is_a_run_error(journal: Journal, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("""UPDATE version SET summary = '{"version": 0, "future": 1}'""")
    with pytest.raises(RunError, match="another release"):
        journal.versions()


# evaluations


def evaluation(number: int = 1, attempt: int = 1, client: str = "ward") -> OpenEvaluation:
    return OpenEvaluation(f"e{number:06d}", client, 0, 0, 1.0, 61.0, attempt=attempt)


def test_an_evaluation_travels_through_the_outbox_and_has_a_receipt(journal: Journal) -> None:
    write(journal, IssueEvaluation(evaluation(), "ward"))
    write(journal, IssueEvaluation(evaluation(attempt=2), "ward"))
    assert [(e.site, e.task_id) for e in journal.outbox()] == [("ward", "e000001")] * 2
    assert journal.receipt("e000001") is None
    assert journal.site_of("e000001") == "ward"
    result = make_result(evaluation(attempt=2)).result
    write(journal, AcceptEvaluation(evaluation(attempt=2), result), now=9.0)
    receipt = journal.receipt("e000001")
    assert receipt is not None and (receipt.attempt, receipt.state) == (2, "accepted")
    assert journal.outbox() == []
    (record,) = journal.evaluations(PLAN.phases)
    assert (record.client_id, record.version, record.sums) == ("ward", 0, result.sums)


def test_receipts_of_evaluations_do_not_count_as_those_of_tasks(journal: Journal) -> None:
    write(journal, AdmitClient(Client("ward", "ward", MappingProxyType({"sft": 9}))))
    write(journal, IssueTask(task(), "local"), IssueEvaluation(evaluation(), "ward"))
    write(journal, CloseTask("t000001", "c0", STALE, 1), now=2.0)
    declined = Rejection(RejectionKind.DECLINED, "evaluation is off")
    write(journal, CloseEvaluation("e000001", "ward", declined, 1), now=3.0)
    assert journal.receipt_counts() == {"rejected": 1}
    newest, oldest = journal.receipts(9)
    assert (newest[0], newest[1].task_id, newest[1].state) == ("ward", "e000001", "rejected")
    assert (oldest[0], oldest[1].task_id) == ("local", "t000001")
    assert recover(PLAN, journal, 4.0, 0.0).declined == {"ward"}


def test_whether_a_client_shares_its_updates_is_recovered(journal: Journal) -> None:
    for name, shares in (("lab", True), ("ward", False)):
        client = Client(name, name, MappingProxyType({"sft": 9}), shares_updates=shares)
        write(journal, AdmitClient(client))
    journal.rows("DELETE FROM sharing WHERE client_id = 'ward'")  # as of an earlier release
    assert [c.shares_updates for c in journal.joined_clients()] == [True, False]


def test_a_version_that_is_evaluated_again_has_an_open_round_of_its_own(journal: Journal) -> None:
    write(journal, OpenRound(0, 0), IssueEvaluation(evaluation(), "ward"))
    write(journal, AcceptEvaluation(evaluation(), make_result(evaluation()).result), now=2.0)
    (found,) = recover(PLAN, journal, 2.0, 0.0).rounds
    assert (found.asked, found.answered) == ({"ward"}, {"ward"})
    write(journal, CloseRound(0, 0), now=3.0)
    state = recover(PLAN, journal, 4.0, 0.0)
    assert (state.rounds, state.evaluated, state.evaluations_issued) == ((), 0, 1)
    write(journal, OpenRound(0, 0), now=5.0)
    (found,) = recover(PLAN, journal, 6.0, 0.0).rounds
    # The deadline starts again with each recovery.
    assert (found.opened_at, found.asked, found.answered) == (6.0, set(), set())
