"""Real full disks: a tmpfs for a worker's state, and one for a coordinator's run directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from broker.chunks import parse_chunk
from common.errors import DiskError
from coordinator.ingest import ingest
from tests.chaos.small_disk import SmallDisk
from tests.support.polled_federation import CHUNK, PolledFederation, check_complete
from tests.support.worker_harness import Model, WorkerHarness, make_model, quick_workers
from worker.events import WorkerEventKind

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Model:
    return make_model(tmp_path_factory.mktemp("cache"), model_cache)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", 4)
    disk.mount()
    if not disk.mounted:
        pytest.skip("no file system can be mounted here")
    yield disk
    disk.unmount()


def test_a_worker_with_a_full_disk_waits_and_sends_its_update_once_there_is_room(
    disk: SmallDisk, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = WorkerHarness(disk.path, model)
    harness.start_run()
    with quick_workers(monkeypatch), harness.serving(harness.worker()):
        disk.fill()
        harness.issue("t0", update_codec="topk")
        assert "the disk is full; make room" in harness.wait_for_event(WorkerEventKind.WAITING)
        disk.free()
        assert harness.next_update().task_id == "t0"
        harness.put_receipt("t0")
        harness.wait_for_event(WorkerEventKind.ACCEPTED)
    harness.assert_queues_empty()


@pytest.mark.parametrize("turn", range(3, 28, 4))
def test_a_coordinator_with_a_full_disk_ends_and_its_run_goes_on_once_there_is_room(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    monkeypatch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))
    federation = PolledFederation(disk.path)
    federation.on_turn = lambda: disk.fill() if federation.turns == turn else None
    with pytest.raises(DiskError, match="full"):
        federation.serve()
    federation.on_turn = lambda: None
    disk.free()
    check_complete(federation, federation.serve())
