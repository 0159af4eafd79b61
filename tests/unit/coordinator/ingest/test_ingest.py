"""Messages become events: chunks in any order, forgeries, and limits on unfinished uploads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import msgpack
import numpy as np
import pytest

from broker.chunks import parse_chunk, split_update
from broker.protocol import Message
from common.errors import RunError, WireError
from common.evaluation.sums import EvaluationSums
from common.protocol import codec
from common.protocol.evaluations import EvalResult
from common.protocol.kinds import RejectionKind
from common.protocol.layout import TensorLayout
from common.protocol.membership import Enrolment
from common.protocol.tasks import TaskRefusal
from common.protocol.tensor_table import make_table
from common.protocol.updates import TensorEntry
from common.protocol.wire import pack
from coordinator.core.events import (
    AcceptUpdate,
    Action,
    CloseTask,
    DuplicateArrived,
    EnrolmentRequested,
    EvaluationArrived,
    Rejection,
    TaskRefused,
    UpdateArrived,
)
from coordinator.core.state import BufferedUpdate, CoordinatorState
from coordinator.ingest import ingest
from coordinator.ingest.ingest import UPLOAD_TTL_S, UPLOADS_PER_SITE, Allowance, Arrival, Ingest
from coordinator.storage.journal import Journal
from coordinator.storage.spool import Spool
from tests.support.coordinator_records import update_frame, version_summary

CHUNK = 160
LAYOUT = TensorLayout((("a", (2, 3)),))
TABLE = make_table("fp32", LAYOUT)


def messages(content: bytes, update_id: str = "t000001.1", user: str = "u") -> list[Message]:
    return [replace(m, user_id=user) for m in split_update(update_id, content, CHUNK)]


class Bench:
    """Ingest with its journal and spool."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal.create(path / "run.db", {})
        self.journal.take_over()
        self.journal.put_version(version_summary(0))
        self.path = path / "spool"
        self.spool = Spool(self.path)
        self.ingest = Ingest(self.journal, self.spool)
        self.ingest.start(LAYOUT)

    def process(self, message: Message, site: str = "s", now: float = 1.0) -> Arrival:
        return self.ingest.process(message, site, "u", now)

    def files(self) -> set[str]:
        return {path.name for path in self.path.glob("*")}

    def accept(self, a: UpdateArrived) -> None:
        update = BufferedUpdate(
            a.task_id, 1, a.client_id, "w0", 0, a.stats, 1.0, a.nbytes, a.upload
        )
        self.write(AcceptUpdate(update, a.norm), drop_chunks=[a.upload])

    def write(self, action: Action, drop_chunks: Sequence[str] = ()) -> None:
        state = CoordinatorState()
        self.journal.write(
            state, state, [action], 1.0, frames={}, summaries={}, drop_chunks=drop_chunks
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))
    bench = Bench(tmp_path)
    yield bench
    bench.journal.close()


def process_all(bench: Bench, content: bytes, site: str = "s") -> Arrival:
    """Process all chunks of an update, and return the result of the last one."""
    *first, last = messages(content)
    assert first, "the update is to have several chunks"
    for message in first:
        assert bench.process(message, site) == Arrival()
    return bench.process(last, site)


def test_the_last_chunk_completes_the_update(bench: Bench) -> None:
    found = process_all(bench, update_frame(2.0)).event
    assert isinstance(found, UpdateArrived)
    assert (found.task_id, found.site, found.problem) == ("t000001", "s", None)
    assert found.norm == pytest.approx(24**0.5)
    assert found.nbytes == len(update_frame(2.0))


@pytest.mark.parametrize("seed", range(5))
def test_chunks_may_come_in_any_order_and_twice(bench: Bench, seed: int) -> None:
    content = update_frame()
    parts = messages(content)
    mixed = parts[1:] * 2
    Random(seed).shuffle(mixed)
    for message in mixed:
        assert bench.process(message).event is None
    assert isinstance(bench.process(parts[0]).event, UpdateArrived)


def test_a_redelivered_last_chunk_completes_the_update_again(bench: Bench) -> None:
    first = process_all(bench, update_frame())
    assert bench.process(messages(update_frame())[-1]) == first


def test_the_same_update_from_two_sites_is_two_files(bench: Bench) -> None:
    process_all(bench, update_frame(), "s")
    process_all(bench, update_frame(), "other")
    assert len(bench.files()) == 2


@pytest.mark.parametrize("user", ["mallory", None])
def test_a_message_without_the_sites_own_user_is_a_forgery(bench: Bench, user: str | None) -> None:
    for message in messages(update_frame()):
        with pytest.raises(WireError, match="user of its site"):
            bench.process(replace(message, user_id=user))
    assert bench.files() == set()


@pytest.mark.parametrize(
    "update_id", ["t1", "t1.x", "a.b.1", "t1.1.1", "x" * 65 + ".1", "t1.123456"]
)
def test_an_update_id_names_a_task_and_an_attempt(bench: Bench, update_id: str) -> None:
    with pytest.raises(WireError, match=r"TASK\.ATTEMPT"):
        bench.process(messages(update_frame(), update_id)[0])


def test_an_upload_may_not_be_larger_than_any_update_can_be(bench: Bench) -> None:
    with pytest.raises(WireError, match="total_size"):
        bench.process(messages(b"x" * 200_000)[0])
    assert bench.files() == set()


def test_every_codec_fits_the_limit_even_for_tensors_smaller_than_a_block(bench: Bench) -> None:
    layout = TensorLayout(tuple((f"t{i:04}", (1,)) for i in range(4000)))
    bench.ingest.start(layout)
    largest = b"x" * codec.payload_bytes("int8", layout)
    assert len(largest) > codec.payload_bytes("fp32", layout)
    assert bench.process(messages(largest)[0]).event is None  # waits for the other chunks


def bad_frames() -> dict[str, bytes]:
    heartbeat = TaskRefusal(task_id="t", attempt=1, client_id="c", worker_id="w", reason="x" * 500)
    return {
        "not an fccl frame": b"\x00" * 600,
        "expected an Update": pack(heartbeat, bytes(600)),
        "SHA-256 that the header declares": update_frame(sha256="0" * 64),
        "cut short": b"FCCL\x01\xff\xff\x00\x00" + bytes(600),
    }


@pytest.mark.parametrize("reason", bad_frames())
def test_an_upload_that_is_no_update_is_refused_and_removed(bench: Bench, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        process_all(bench, bad_frames()[reason])
    assert bench.files() == set()
    assert bench.journal.unfinished_uploads() == {}


def test_an_upload_with_another_hash_than_announced_is_removed(bench: Bench) -> None:
    honest, other = messages(update_frame(1.0)), messages(update_frame(2.0))
    lying = replace(
        other[-1], headers={**other[-1].headers, "total_sha256": honest[0].headers["total_sha256"]}
    )
    for message in honest[:-1]:
        bench.process(message)
    with pytest.raises(WireError, match="SHA-256 that its chunks claim"):
        bench.process(lying)
    assert bench.files() == set()
    assert isinstance(
        process_all(bench, update_frame(1.0)).event, UpdateArrived
    )  # and may come again


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (update_frame(name="b"), "names or shapes of the update"),
        (update_frame(codec="bf16"), "24 bytes, not 12 as their shapes require"),
        (update_frame(layout="0" * 64), "names or shapes of the update"),
        (update_frame(layout=None, tensors=TABLE), "schema version 1, but its task has version 2"),
    ],
)
def test_tensors_that_do_not_fit_are_reported_with_the_update(
    bench: Bench, content: bytes, problem: str
) -> None:
    found = process_all(bench, content).event
    assert isinstance(found, UpdateArrived)
    assert found.problem is not None and found.problem.kind is RejectionKind.TENSORS
    assert problem in found.problem.reason


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (TABLE, ""),
        (make_table("fp32", TensorLayout((("b", (2, 3)),))), "names or shapes of the update"),
        (make_table("fp32", TensorLayout((("a", (3, 2)),))), "names or shapes of the update"),
        ((TABLE[0].model_copy(update={"offset": 4}),), "do not follow from their shapes"),
        ((TABLE[0].model_copy(update={"nbytes": 4}),), "do not follow from their shapes"),
        ((*TABLE, *TABLE), "appears twice"),
        ((), "names or shapes of the update"),
    ],
)
def test_an_update_of_schema_1_is_accepted_in_a_run_of_schema_1_only_with_its_table(
    bench: Bench, table: tuple[TensorEntry, ...], problem: str
) -> None:
    bench.ingest.start(LAYOUT, schema1=True)
    found = process_all(bench, update_frame(layout=None, tensors=table)).event
    assert isinstance(found, UpdateArrived)
    assert problem in (found.problem.reason if found.problem else "")
    assert (found.problem is None) == (problem == "")


def test_values_that_are_not_finite_are_reported_with_the_update(bench: Bench) -> None:
    # An honest encoder refuses them, so the bytes are forged, with the digest to match.
    data = np.full((2, 3), np.nan, "<f4").tobytes()
    content = update_frame(sha256=codec.digest(data))[:-24] + data
    found = process_all(bench, content).event
    assert isinstance(found, UpdateArrived)
    assert found.problem is not None and found.problem.kind is RejectionKind.NOT_FINITE


def test_an_update_of_a_task_that_has_a_receipt_needs_no_disk(bench: Bench) -> None:
    bench.write(CloseTask("t000001", "c0", Rejection(RejectionKind.PHASE_OVER, "phase over")))
    for message in messages(update_frame()):
        assert bench.process(message) == Arrival(DuplicateArrived("t000001"))
    assert bench.files() == set()


def test_the_file_of_an_accepted_update_is_not_overwritten(bench: Bench) -> None:
    content = update_frame()
    candidate = process_all(bench, content).event
    assert isinstance(candidate, UpdateArrived)
    bench.accept(candidate)
    # The same bytes under another task's name, which has no receipt.
    for message in messages(content, "t000002.1"):
        with pytest.raises(WireError, match="accepted already"):
            bench.process(message)
    lie = {"total_sha256": messages(content)[0].headers["total_sha256"]}
    forged = messages(update_frame(9.0), "t000003.1")[0]
    with pytest.raises(WireError, match="accepted already"):
        bench.process(replace(forged, headers={**forged.headers, **lie}))
    assert bench.spool.frame(candidate.upload) == content
    bench.ingest.expire(1e9)
    assert bench.files() == {candidate.upload}


def test_the_number_of_unfinished_updates_of_a_site_is_limited(bench: Bench) -> None:
    for i in range(UPLOADS_PER_SITE):
        bench.process(messages(update_frame(i), f"t{i}.1")[0])
    with pytest.raises(WireError, match="unfinished updates"):
        bench.process(messages(update_frame(999.0), "t999.1")[0])
    *_, last = [bench.process(message) for message in messages(update_frame(0), "t0.1")[1:]]
    assert last.event is not None  # those may be completed
    assert bench.process(messages(update_frame(999.0), "t999.1")[0], site="other").event is None


def test_unfinished_updates_are_dropped_after_an_hour(bench: Bench) -> None:
    bench.process(messages(update_frame())[0], now=1.0)
    bench.ingest.expire(UPLOAD_TTL_S)
    assert len(bench.files()) == 1
    bench.ingest.expire(UPLOAD_TTL_S + 2)
    assert bench.files() == set()
    assert bench.journal.unfinished_uploads() == {}


def test_a_refusal_needs_no_chunks(bench: Bench) -> None:
    refusal = TaskRefusal(task_id="t1", attempt=2, client_id="c0", worker_id="w", reason="no disk")
    found = bench.process(Message(pack(refusal), user_id="u"))
    assert found == Arrival(TaskRefused("t1", 2, "c0", "s", "no disk"))


def test_a_refusal_tells_whether_the_site_declines_for_good(bench: Bench) -> None:
    refusal = TaskRefusal(
        task_id="e1", attempt=1, client_id="c0", worker_id="w", reason="off", declines=True
    )
    found = bench.process(Message(pack(refusal), user_id="u"))
    assert found == Arrival(TaskRefused("e1", 1, "c0", "s", "off", declines=True))


@pytest.mark.parametrize("shares", [True, False, None])
def test_an_enrolment_tells_whether_the_client_shares_its_updates(
    bench: Bench, shares: bool | None
) -> None:
    bench.ingest.allowances = {"s": Allowance(max_clients=1, max_rows=10)}
    enrolment = Enrolment(
        client_id="s", worker_id="w", rows={"sft": 9}, nonce=1, shares_updates=shares
    )
    found = bench.process(Message(pack(enrolment), user_id="u")).event
    assert isinstance(found, EnrolmentRequested) and found.shares_updates is bool(shares)


def eval_result(task_id: str = "e000001") -> EvalResult:
    sums = EvaluationSums(rows=3, loss=1.5, tokens=30, bytes=90)
    return EvalResult(
        task_id=task_id, attempt=1, client_id="c0", worker_id="w", version=0, sums=sums, seconds=1.0
    )


def test_an_answer_to_an_evaluation_arrives_in_chunks_as_an_update_does(bench: Bench) -> None:
    *first, last = messages(pack(eval_result()), "e000001.1")
    assert first
    for message in first:
        assert bench.process(message).event is None
    found = bench.process(last)
    assert found.event == EvaluationArrived(eval_result(), "s")
    assert bench.files() == {found.upload}  # until the core has decided


def test_a_negative_sum_is_refused_with_the_reason(bench: Bench) -> None:
    frame = pack(eval_result()).replace(msgpack.packb(1.5), msgpack.packb(-1.5))
    *first, last = messages(frame, "e000001.1")
    for message in first:
        bench.process(message)
    with pytest.raises(WireError, match=r"EvalResult: sums.loss: .* greater than or equal to 0"):
        bench.process(last)
    assert bench.files() == set() and bench.journal.unfinished_uploads() == {}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (pack(eval_result("e000002")), "the chunks of e000001 hold an EvalResult of e000002"),
        (pack(eval_result(), b"x"), "1 bytes follow an EvalResult"),
        (b"x" * 200, "not an fccl frame"),
    ],
)
def test_a_broken_answer_to_an_evaluation_is_refused_and_removed(
    bench: Bench, frame: bytes, reason: str
) -> None:
    *first, last = messages(frame, "e000001.1")
    for message in first:
        bench.process(message)
    with pytest.raises(WireError, match=reason):
        bench.process(last)
    assert bench.files() == set()


def test_an_answer_to_an_evaluation_may_not_be_as_large_as_an_update(bench: Bench) -> None:
    size = ingest.MAX_RESULT + 1
    assert bench.process(messages(b"x" * size, "t000001.1")[0]).event is None
    with pytest.raises(WireError, match="total_size"):
        bench.process(messages(b"x" * size, "e000001.1")[0])


def test_a_disk_error_does_not_reject_the_message(bench: Bench) -> None:
    bench.path.touch()  # a file, where the directory should be
    with pytest.raises(RunError, match="spool"):
        bench.process(messages(update_frame())[0])
    bench.path.unlink()
