"""Tests of the files that a worker keeps, and of the locks that guard them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import Timeout
from safetensors.numpy import load_file

from common.errors import RunError
from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.tensor_table import layout_of
from common.protocol.updates import Update
from common.protocol.wire import unpack
from tests.support import schema1
from tests.support.processes import forked
from tests.support.virtual_federation import make_stats
from tests.support.worker_records import task, update
from worker import error_feedback, spool
from worker.spool import Slot, claim_slot, client_lock, count_workers

STATS = make_stats().fields()
RUN = "run-1"


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return claim_slot(tmp_path, RUN)


def test_a_task_stays_until_it_is_dropped(slot: Slot) -> None:
    assert slot.task() is None
    slot.put_task(task("t1"))
    assert slot.task() == task("t1")
    slot.drop_task()
    assert slot.task() is None


def test_a_restarted_worker_finds_the_task_and_the_updates_of_its_predecessor(
    tmp_path: Path,
) -> None:
    first = claim_slot(tmp_path, RUN)
    first.put_task(task("t2"))
    first.put_update(update("t1", attempt=3), b"data")
    first.release()
    second = claim_slot(tmp_path, RUN)
    assert second.number == first.number
    assert second.task() == task("t2")
    assert [pending.update_id for pending in second.pending_updates()] == ["t1.3"]


def test_the_starts_of_a_task_that_ended_the_process_are_counted(tmp_path: Path) -> None:
    for expected in range(3):
        assert forked(_killed_in_training, tmp_path, expected) == -signal.SIGKILL
    slot = claim_slot(tmp_path, RUN)
    with pytest.raises(KeyError), slot.running(task("t1", attempt=2)) as crashes:
        assert crashes == 3
        raise KeyError  # an error is no crash
    slot.drop_task()
    with slot.running(task("t1")) as crashes:
        assert crashes == 3
    with slot.running(task("t2")) as crashes:
        assert crashes == 0
    with slot.running(task("t1")) as crashes:
        assert crashes == 0


def _killed_in_training(state: Path, expected: int) -> None:
    with claim_slot(state, RUN).running(task("t1")) as crashes:
        if crashes == expected:
            os.kill(os.getpid(), signal.SIGKILL)


def test_updates_stay_until_each_is_dropped(slot: Slot) -> None:
    kept = [slot.put_update(update(name), b"data") for name in ("t2", "t1")]
    assert [pending.task_id for pending in slot.pending_updates()] == ["t1", "t2"]
    slot.drop_update(kept[0])
    assert [pending.task_id for pending in slot.pending_updates()] == ["t1"]
    slot.drop_update(kept[0])  # again is harmless


def test_a_task_id_with_dots_is_kept_like_any_other(slot: Slot) -> None:
    slot.put_update(update("a.b.c", attempt=2), b"")
    [pending] = slot.pending_updates()
    assert (pending.task_id, pending.attempt) == ("a.b.c", 2)


def test_a_file_that_a_crash_left_half_written_is_no_update(slot: Slot) -> None:
    pending = slot.put_update(update("t1"), b"data")
    pending.path.with_name(".t2.1.tmp").write_bytes(b"FCC")
    assert [each.task_id for each in slot.pending_updates()] == ["t1"]


def test_a_task_and_an_update_that_an_older_release_kept_are_continued(
    slot: Slot, tmp_path: Path
) -> None:
    place, kept = tmp_path / RUN / "slots" / "0", task("t1")
    (place / "task").write_bytes(schema1.frame("TrainTask", kept.fields()))
    (place / "updates" / "t1.1").write_bytes(schema1.update(kept.fields(), STATS, DELTA))
    assert slot.task() == kept and kept.layout is None
    [pending] = slot.pending_updates()
    record, data = unpack(Update, pending.path.read_bytes())
    assert record.tensors is not None
    layout = layout_of(record.codec, record.tensors)
    assert np.array_equal(codec.decode("fp32", layout, data)["w"], DELTA["w"])


def test_a_task_of_another_protocol_version_is_forgotten(slot: Slot, tmp_path: Path) -> None:
    slot.put_task(task("t1"))
    path = tmp_path / RUN / "slots" / "0" / "task"
    path.write_bytes(path.read_bytes().replace(b"FCCL\x01", b"FCCL\xff"))
    assert slot.task() is None
    assert not path.exists()


def test_two_workers_never_share_a_slot(tmp_path: Path) -> None:
    slots = [claim_slot(tmp_path, RUN) for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 1, 2]
    slots[1].release()
    assert claim_slot(tmp_path, RUN).number == 1


def test_the_slot_of_a_killed_process_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_a_slot, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    assert claim_slot(tmp_path, RUN).number == 1
    process.kill()
    process.join()
    assert claim_slot(tmp_path, RUN).number == 0


def hold_a_slot(state: Path, ready: multiprocessing.synchronize.Event) -> None:
    slot = claim_slot(state, RUN)
    ready.set()
    while slot:
        ready.wait()


def test_runs_have_slots_of_their_own(tmp_path: Path) -> None:
    assert (claim_slot(tmp_path, "one").number, claim_slot(tmp_path, "two").number) == (0, 0)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=f"{tmp_path}/file") as caught:
        claim_slot(tmp_path / "file", RUN)
    assert "--state" in caught.value.remedy


def test_a_clients_private_state_has_one_user_at_a_time(tmp_path: Path) -> None:
    with (
        client_lock(tmp_path, RUN, "client_0", 0.0),
        client_lock(tmp_path, RUN, "client_1", 0.0),  # another client's is free
        pytest.raises(Timeout),
        client_lock(tmp_path, RUN, "client_0", 0.0),
    ):
        pass


def test_an_update_is_on_the_disk_as_it_travels(slot: Slot) -> None:
    pending = slot.put_update(update("t1"), b"tensors")
    record, data = unpack(Update, pending.path.read_bytes())
    assert (record, bytes(data)) == (update("t1"), b"tensors")


# Who shares the machine


def test_workers_are_the_live_processes_that_hold_slots_of_any_run(tmp_path: Path) -> None:
    assert count_workers(tmp_path) == 0
    slots = [claim_slot(tmp_path, RUN), claim_slot(tmp_path, RUN), claim_slot(tmp_path, "another")]
    assert count_workers(tmp_path) == 1  # all three are this process
    ended = subprocess.Popen(["true"])
    ended.wait()
    for number, pid in ((7, os.getppid()), (8, ended.pid), (9, "no number")):
        place = tmp_path / RUN / "slots" / str(number)
        place.mkdir()
        (place / "pid").write_text(str(pid))
    assert count_workers(tmp_path) == 2  # this one and its parent
    assert claim_slot(tmp_path, RUN).number == 2  # whatever was counted, the locks are as they were
    for slot in slots:
        slot.release()


def test_a_released_slot_is_not_counted(tmp_path: Path) -> None:
    slot = claim_slot(tmp_path, RUN)
    assert count_workers(tmp_path) == 1
    slot.release()
    assert count_workers(tmp_path) == 0


# The residual goes with its update. DELTA is sent by topk, which takes one value of ten: the 5
# goes out, [0, 1, 2] stay.

DELTA = {"w": np.array([5, 1, 2, 0, 0, 0, 0, 0, 0, 0], np.float32)}


def train(slot: Slot, task_id: str) -> None:
    """Encode and spool an update, as a worker does once a model is trained."""
    layout, data = error_feedback.encode("topk", DELTA, slot.residual(task(task_id)))
    slot.put_update(update(task_id, codec="topk", layout=layout.digest), data)


def sent(slot: Slot) -> np.ndarray:
    """Return the sum of the updates in a slot."""
    total = np.zeros(10, np.float32)
    for pending in slot.pending_updates():
        record, data = unpack(Update, pending.path.read_bytes())
        total += codec.decode(record.codec, TensorLayout.of(DELTA), data)["w"]
    return total


def kept(slot: Slot) -> np.ndarray:
    """Return the residual with which the client's next update begins."""
    path = slot.residual(task("next")).current
    return load_file(path)["w"] if path.exists() else np.zeros(10, np.float32)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_update_is_written() -> None:
    spool.write_durable = die


def before_the_residual_is_promoted() -> None:
    spool.promote_residual = die


def nowhere() -> None:
    pass


def train_and_die(state: Path, at: Callable[[], None]) -> None:
    slot = claim_slot(state, RUN)
    train(slot, "t1")
    at()
    train(slot, "t2")
    die()


@pytest.mark.parametrize(
    ("point", "updates"),
    [
        (before_the_update_is_written, ["t1"]),
        (before_the_residual_is_promoted, ["t1", "t2"]),
        (nowhere, ["t1", "t2"]),
    ],
)
@pytest.mark.parametrize("other", [False, True], ids=["same slot", "another slot"])
def test_after_a_kill_the_residual_is_what_the_spooled_updates_left(
    tmp_path: Path, point: Callable[[], None], updates: list[str], other: bool
) -> None:
    assert forked(train_and_die, tmp_path, point) == -signal.SIGKILL
    left = claim_slot(tmp_path, RUN)
    user = claim_slot(tmp_path, RUN) if other else left  # who trains the client next
    assert [pending.task_id for pending in left.pending_updates()] == updates
    assert (sent(left) + kept(user)).tolist() == (DELTA["w"] * len(updates)).tolist()
    train(user, "t3")
    total = sent(left) + (sent(user) if other else 0)
    assert (total + kept(user)).tolist() == (DELTA["w"] * (len(updates) + 1)).tolist()
    assert [path.name for path in (tmp_path / RUN / "clients/client_0").iterdir()] == [
        spool.RESIDUAL
    ]


def test_an_update_that_is_settled_before_its_residual_is_promoted_takes_it_along(
    tmp_path: Path,
) -> None:
    assert forked(train_and_die, tmp_path, before_the_residual_is_promoted) == -signal.SIGKILL
    left = claim_slot(tmp_path, RUN)
    total = sent(left)
    for pending in left.pending_updates():
        left.drop_update(pending)  # its receipt comes before the client is trained again
    assert (total + kept(left)).tolist() == (DELTA["w"] * 2).tolist()


def test_codecs_without_feedback_leave_no_residual(slot: Slot, tmp_path: Path) -> None:
    error_feedback.encode("fp32", DELTA, slot.residual(task("t1")))
    slot.put_update(update("t1"), b"")
    assert list((tmp_path / RUN / "clients" / "client_0").iterdir()) == []
