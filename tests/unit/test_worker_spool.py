"""What a worker keeps on its disk, and who may use it."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from filelock import Timeout

from common.errors import RunError
from common.records import Update
from tests.unit.worker_records import task, update
from worker.spool import Slot, claim, client_lock

RUN = "run-1"


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return claim(tmp_path, RUN)


def test_a_task_is_there_until_it_is_dropped(slot: Slot) -> None:
    assert slot.task() is None
    slot.put_task(task("t1"))
    assert slot.task() == task("t1")
    slot.drop_task()
    assert slot.task() is None


def test_a_restarted_worker_finds_the_task_and_the_updates_of_its_predecessor(
    tmp_path: Path,
) -> None:
    first = claim(tmp_path, RUN)
    first.put_task(task("t2"))
    first.put_update(update("t1", attempt=3), b"data")
    first.release()
    second = claim(tmp_path, RUN)
    assert second.number == first.number
    assert second.task() == task("t2")
    assert [pending.update_id for pending in second.pending()] == ["t1.3"]


def test_updates_wait_until_each_is_dropped(slot: Slot) -> None:
    kept = [slot.put_update(update(name), b"data") for name in ("t2", "t1")]
    assert [pending.task_id for pending in slot.pending()] == ["t1", "t2"]
    slot.drop_update(kept[0])
    assert [pending.task_id for pending in slot.pending()] == ["t1"]
    slot.drop_update(kept[0])  # again is harmless


def test_a_task_id_with_dots_is_kept_like_any_other(slot: Slot) -> None:
    slot.put_update(update("a.b.c", attempt=2), b"")
    [pending] = slot.pending()
    assert (pending.task_id, pending.attempt) == ("a.b.c", 2)


def test_what_a_crash_left_half_written_is_no_update(slot: Slot) -> None:
    pending = slot.put_update(update("t1"), b"data")
    pending.path.with_name(".t2.1.tmp").write_bytes(b"FCC")
    assert [each.task_id for each in slot.pending()] == ["t1"]


def test_a_task_of_another_protocol_version_is_forgotten(slot: Slot, tmp_path: Path) -> None:
    slot.put_task(task("t1"))
    path = tmp_path / RUN / "slots" / "0" / "task"
    path.write_bytes(path.read_bytes().replace(b"FCCL\x01", b"FCCL\xff"))
    assert slot.task() is None
    assert not path.exists()


def test_two_workers_never_share_a_slot(tmp_path: Path) -> None:
    slots = [claim(tmp_path, RUN) for _ in range(3)]
    assert [slot.number for slot in slots] == [0, 1, 2]
    slots[1].release()
    assert claim(tmp_path, RUN).number == 1


def test_the_slot_of_a_killed_process_is_free(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_a_slot, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    assert claim(tmp_path, RUN).number == 1
    process.kill()
    process.join()
    assert claim(tmp_path, RUN).number == 0


def hold_a_slot(state: Path, ready: multiprocessing.synchronize.Event) -> None:
    slot = claim(state, RUN)
    ready.set()
    while slot:
        ready.wait()


def test_runs_have_slots_of_their_own(tmp_path: Path) -> None:
    assert (claim(tmp_path, "one").number, claim(tmp_path, "two").number) == (0, 0)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=f"{tmp_path}/file") as caught:
        claim(tmp_path / "file", RUN)
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
    from common.wire import unpack

    pending = slot.put_update(update("t1"), b"tensors")
    record, data = unpack(Update, pending.path.read_bytes())
    assert (record, bytes(data)) == (update("t1"), b"tensors")
