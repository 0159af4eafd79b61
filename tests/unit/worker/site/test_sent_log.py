from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from common.errors import RunError
from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalResult
from common.protocol.tasks import Receipt
from common.protocol.wire import pack
from tests.support.worker_records import update
from worker.site.sent_log import SentLogWriter, read_log


def writer(state: Path) -> SentLogWriter:
    return SentLogWriter(state, "run-1", "hospital-a", lambda: 7.0)


def result() -> EvalResult:
    return EvalResult(
        task_id="e000001",
        attempt=1,
        client_id="hospital-a",
        worker_id="w",
        version=3,
        sums=EvaluationSums(rows=2, loss=1.5, tokens=9, bytes=30),
        seconds=0.5,
    )


def test_a_log_has_a_line_for_each_answer_and_each_receipt(tmp_path: Path) -> None:
    log, frame = writer(tmp_path / "work"), pack(update("t1"), b"tensors")
    log.note_norm("t1.1", 0.5)
    log.append_frame(frame)
    log.append_frame(pack(result()))
    log.append_receipt(Receipt(task_id="t1", attempt=1, state="rejected", reason="too late"))
    found = read_log(log.path)
    sent, evaluated = found.sent
    assert (sent.at, sent.run, sent.site, sent.task) == (7.0, "run-1", "hospital-a", "t1")
    assert (sent.kind, sent.bytes, sent.norm) == ("update", len(frame), 0.5)
    assert sent.sha256 == hashlib.sha256(frame).hexdigest()
    assert (evaluated.kind, evaluated.version, evaluated.norm) == ("evaluation", 3, None)
    assert [note.reason for note in found.receipts] == ["too late"]
    assert log.path.stat().st_mode & 0o77 == 0


def test_an_answer_that_is_published_again_has_one_line(tmp_path: Path) -> None:
    log, frame = writer(tmp_path), pack(update("t1"))
    log.append_frame(frame)
    log.append_frame(frame)
    assert len(read_log(log.path).sent) == 1


def test_a_line_that_a_crash_cut_short_is_dropped_by_readers_and_writers(tmp_path: Path) -> None:
    writer(tmp_path).append_frame(pack(update("t1")))
    path = tmp_path / "sent.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert [each.task for each in read_log(path).sent] == ["t1"]
    writer(tmp_path).append_frame(pack(update("t2")))
    assert [each.task for each in read_log(path).sent] == ["t1", "t2"]


@pytest.mark.parametrize("line", ["{}", "7", "nonsense", json.dumps({"receipt": "maybe"})])
def test_a_damaged_line_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    writer(tmp_path).append_frame(pack(update("t1")))
    path = tmp_path / "sent.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RunError, match=r"sent\.jsonl:2 is not a line of a site's log"):
        read_log(path)


def test_a_log_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "sent.jsonl").mkdir()
    with pytest.raises(RunError, match="goes on by itself"):
        writer(tmp_path).append_frame(pack(update("t1")))
