"""A worker whose state directory is full or read-only waits, and goes on when it is repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.failing_disk import REFUSALS, FailingDisk
from tests.support.worker_harness import RUN, Model, WorkerHarness, make_model, quick_workers
from worker import task_support
from worker.events import WorkerEventKind


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Model:
    return make_model(tmp_path_factory.mktemp("cache"), model_cache)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(task_support, "DISK_RETRY_S", 0.05)
    with quick_workers(monkeypatch):
        yield


REFUSED = (  # what the disk refuses, until the worker has reported it
    "open slots/0/.task.tmp",
    "open slots/0/.crashes.tmp",
    "open clients/client_0/lock",
    "open clients/client_0/.residual.0.t0.1.tmp",
    "open slots/0/updates/.t0.1.tmp",
    "fsync slots/0/updates/.t0.1.tmp",
    "replace slots/0/updates/.t0.1.tmp",
    "replace clients/client_0/residual.0.t0.1",
    "open slots/0/updates/t0.1",
    "unlink slots/0/updates/t0.1",
    "unlink slots/0/task",
)


def work_through(root: Path, model: Model, refused: str, number: int) -> None:
    """Train a task while the disk refuses an operation until the worker reports it."""
    root.mkdir()
    harness = WorkerHarness(root, model)
    harness.start_run()
    function, path = refused.split()
    disk = FailingDisk(root, number, 0, f"{function} {root}/state/{RUN}/{path}")
    with pytest.MonkeyPatch.context() as patch:
        disk.install(patch)
        with harness.serving(harness.worker()):
            harness.issue("t0", update_codec="topk")
            if refused == "unlink slots/0/updates/t0.1":
                assert harness.next_update().task_id == "t0"
                harness.put_receipt("t0")
            text = harness.wait_for_event(WorkerEventKind.WAITING)
            assert str(root) in text and "the worker goes on by itself" in text
            disk.first = -1
            if refused != "unlink slots/0/updates/t0.1":
                assert harness.next_update().task_id == "t0"
                harness.put_receipt("t0")
            harness.wait_for_event(WorkerEventKind.ACCEPTED)
    assert disk.failures
    assert harness.file_names("slots", "0", "updates") == []
    harness.assert_queues_empty()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("refused", REFUSED)
def test_a_worker_waits_while_its_disk_refuses_and_sends_the_update_once(
    tmp_path: Path, model: Model, refused: str
) -> None:
    work_through(tmp_path / "w", model, refused, REFUSALS[REFUSED.index(refused) % len(REFUSALS)])
