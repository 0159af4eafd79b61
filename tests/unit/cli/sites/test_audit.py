"""A site's log is compared with the journal of a coordinator that ran."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from broker.chunks import parse_chunk
from cli.sites.audit import command
from common.errors import RunError
from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalResult
from common.protocol.tasks import Receipt, TrainTask
from common.protocol.wire import pack, unpack
from coordinator.ingest import ingest
from tests.support.polled_federation import CHUNK, PolledFederation, answer, delta
from worker.site.sent_log import SentLogWriter
from worker.trainer import l2_norm


@dataclass(frozen=True)
class AuditedRun:
    """Directory of a run that has ended, the log of its site, and the audit of both."""

    run: Path
    log: SentLogWriter

    def change_journal(self, query: str, *values: object) -> None:
        with closing(sqlite3.connect(self.run / "run.db")) as db, db:
            db.execute(query, values)

    def change_log(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the first line of the log."""
        first, *others = self.log.path.read_text().splitlines()
        fields = json.loads(first)
        change(fields)
        self.log.path.write_text("\n".join([json.dumps(fields), *others]) + "\n")

    def audit(self, *words: str) -> Result:
        return CliRunner().invoke(
            command, [str(self.log.path), "--run", str(self.run), *words], catch_exceptions=True
        )

    def statuses(self) -> list[str]:
        """Return what does not agree."""
        result = self.audit("--json")
        found = json.loads(result.output)
        wrong = [row["status"] for row in found["answers"] if not row["agrees"]]
        assert result.exit_code == (1 if wrong else 0) and found["agree"] == (not wrong)
        return wrong


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> AuditedRun:
    """Return a run of six updates, all of which are in the log."""
    directory = tmp_path_factory.mktemp("audited")
    federation = PolledFederation(directory / "runs")
    log = SentLogWriter(directory / "site", federation.topology.run, "local", lambda: 1.0)

    def log_answer(frame: bytes) -> bytes:
        task, reply = unpack(TrainTask, frame)[0], answer(frame)
        log.note_norm(f"{task.task_id}.{task.attempt}", l2_norm(delta(task.task_id)))
        log.append_frame(reply)
        return reply

    federation.answer = log_answer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))
        federation.serve()
    return AuditedRun(federation.directory, log)


@pytest.fixture
def audited(recorded: AuditedRun, tmp_path: Path) -> AuditedRun:
    """Return a copy that a test may change."""
    shutil.copytree(recorded.run, tmp_path / "run")
    shutil.copytree(recorded.log.state, tmp_path / "site")
    return AuditedRun(tmp_path / "run", replace(recorded.log, state=tmp_path / "site"))


def test_the_log_and_the_journal_of_an_honest_run_agree(audited: AuditedRun) -> None:
    assert audited.statuses() == []
    result = audited.audit()
    assert result.output.splitlines()[-1].endswith("updates and evaluations, all agree")


def test_an_update_that_the_coordinator_lacks_is_found(audited: AuditedRun) -> None:
    audited.change_journal("DELETE FROM accepted WHERE task_id = 't000002'")
    audited.change_journal("DELETE FROM receipt WHERE task_id = 't000002'")
    assert audited.statuses() == ["sent by the site, not in the coordinator's journal"]


def test_a_receipt_without_an_update_is_found(audited: AuditedRun) -> None:
    audited.change_journal("DELETE FROM accepted WHERE task_id = 't000002'")
    (status,) = audited.statuses()
    assert status.startswith("the receipt says accepted, but the coordinator's journal has no such")


def test_an_update_that_the_site_did_not_send_is_found(audited: AuditedRun) -> None:
    lines = audited.log.path.read_text().splitlines(keepends=True)
    audited.log.path.write_text("".join(lines[:2] + lines[3:]))
    assert audited.statuses() == ["accepted by the coordinator, not in the site's log"]
    assert "! accepted by the coordinator" in audited.audit().output


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("bytes", 7, "differs: bytes 7 in the log, 1010 in the journal"),
        ("sha256", "ab" * 32, "differs: sha256 abababababab in the log"),
        ("client", "client_9", "differs: client client_9 in the log"),
        ("norm", 0.5, "differs: norm 0.5 in the log"),
    ],
)
def test_differences_are_named(audited: AuditedRun, name: str, value: object, status: str) -> None:
    audited.change_log(lambda fields: fields.update({name: value}))
    (found,) = audited.statuses()
    assert found.startswith(status)


def test_norms_agree_within_rounding_and_may_be_missing(audited: AuditedRun) -> None:
    audited.change_log(lambda fields: fields.update(norm=fields["norm"] * (1 + 5e-7)))
    assert audited.statuses() == []
    audited.change_log(lambda fields: fields.update(norm=None))
    assert audited.statuses() == []


def test_a_rejected_update_agrees_unless_the_site_was_told_otherwise(
    audited: AuditedRun,
) -> None:
    audited.change_journal("DELETE FROM accepted WHERE task_id = 't000002'")
    query = "UPDATE receipt SET state = 'rejected', reason = 'stale' WHERE task_id = 't000002'"
    audited.change_journal(query)
    assert audited.statuses() == []
    assert "rejected: stale" in audited.audit().output
    audited.log.append_receipt(Receipt(task_id="t000002", attempt=1, state="accepted"))
    assert len(audited.statuses()) == 1


def test_a_receipt_of_the_site_that_contradicts_the_journal_is_found(
    audited: AuditedRun,
) -> None:
    audited.log.append_receipt(Receipt(task_id="t000001", attempt=1, state="rejected"))
    assert audited.statuses() == ["differs: the site got a receipt that says rejected"]


def test_an_earlier_attempt_of_an_accepted_update_agrees(audited: AuditedRun) -> None:
    fields = json.loads(audited.log.path.read_text().splitlines()[0])
    fields |= {"attempt": 2, "sha256": "cd" * 32}
    audited.log.path.write_text(audited.log.path.read_text() + json.dumps(fields) + "\n")
    assert audited.statuses() == []
    assert "superseded: attempt 1 was accepted" in audited.audit().output


def test_evaluations_are_compared_by_their_sums(audited: AuditedRun) -> None:
    result = EvalResult(
        task_id="e000001",
        attempt=1,
        client_id="client_0",
        worker_id="w",
        version=0,
        sums=EvaluationSums(rows=3, loss=0.1 + 0.2, tokens=9, bytes=30),
        seconds=1 / 3,
    )
    row = ("e000001", 1, "client_0", "local", 0, 0, "", 1.0, "accepted", "", 2.0)
    marks = ", ".join("?" * 12)
    audited.change_journal(
        f"INSERT INTO evaluation VALUES ({marks})", *row, result.model_dump_json()
    )
    assert audited.statuses() == ["accepted by the coordinator, not in the site's log"]
    audited.log.append_frame(pack(result))
    assert audited.statuses() == []
    other = result.model_copy(update={"sums": EvaluationSums(rows=3, loss=9.0, tokens=9, bytes=30)})
    audited.change_journal("UPDATE evaluation SET result = ?", other.model_dump_json())
    (status,) = audited.statuses()
    assert "sha256" in status


def test_a_log_of_another_run_names_no_answer_of_this_one(audited: AuditedRun) -> None:
    text = audited.log.path.read_text().replace(audited.log.run, "other-1")
    audited.log.path.write_text(text)
    assert len(audited.statuses()) == 6


def test_a_log_cut_short_by_a_crash_can_be_audited(audited: AuditedRun) -> None:
    with audited.log.path.open("a") as file:
        file.write('{"at": 1.0, "run"')
    assert audited.statuses() == []


def test_an_empty_log_needs_the_name_of_its_site(audited: AuditedRun) -> None:
    audited.log.path.write_text("")
    error = audited.audit().exception
    assert isinstance(error, RunError) and "names no site; name the site with --site" in str(error)
    assert "6 do not agree" in audited.audit("--site", "local").output


def test_a_directory_without_a_run_is_an_error(audited: AuditedRun, tmp_path: Path) -> None:
    words = [str(audited.log.path), "--run", str(tmp_path)]
    error = CliRunner().invoke(command, words).exception
    assert isinstance(error, RunError) and "holds no run" in str(error)
