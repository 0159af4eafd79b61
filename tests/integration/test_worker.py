"""Tests of a worker with a broker and a store in this process.

The tests play the coordinator: they put the adapter into the store and tasks on the queue, and read
what comes back. A worker that is to be killed runs in a process of its own, which ends itself with
SIGKILL at the chosen point; the next worker then gets the same state directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from broker.embedded.broker import EmbeddedBroker, EmbeddedServer
from broker.protocol import LOCAL, Message, Site, TakenTask, Topology
from common.errors import DataError, ModelError
from common.model_cache import find_installed
from common.protocol import codec
from common.protocol.adapter_frame import pack_adapter, unpack_adapter
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BlobRef, TaskRefusal, TrainTask
from common.protocol.wire import kind_of, pack, unpack
from coordinator.publish import base_model_server
from coordinator.publish.base_model_server import BaseModelServer
from learning.models import hub
from learning.training.loop import StepReport
from tests.support import schema1
from tests.support.processes import eventually, forked
from tests.support.tiny_model import write_sharded_model
from tests.support.worker_harness import (
    COMPUTE,
    NAME,
    RUN,
    Model,
    WorkerHarness,
    info,
    make_model,
    quick_workers,
)
from worker import service, task_support
from worker.events import WorkerEventKind
from worker.models import base_source
from worker.site.run_discovery import find_run
from worker.spool import claim_slot, client_lock


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Model:
    return make_model(tmp_path_factory.mktemp("worker-cache"), model_cache)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quick_workers(monkeypatch):
        yield


@pytest.fixture
def harness(tmp_path: Path, model: Model) -> Iterator[WorkerHarness]:
    harness = WorkerHarness(tmp_path, model)
    harness.start_run()
    yield harness
    harness.stores.close()


# Without failures


def test_a_task_becomes_an_update_and_its_receipt_removes_it(harness: WorkerHarness) -> None:
    harness.issue("t1")
    with harness.serving(harness.worker()) as serving:
        update = harness.next_update()
        assert (update.task_id, update.attempt, update.client_id) == ("t1", 1, "client_0")
        assert update.worker_id == "host-0"
        assert harness.file_names("slots", "0", "updates") == ["t1.1"]
        harness.put_receipt("t1")
        assert harness.wait_for_event("accepted") == "update t1.1 accepted"
    served = serving.result()
    assert (served.trained, served.settled, served.waiting) == (1, 1, 0)
    assert "finished" in served.reason
    assert harness.file_names("slots", "0") == ["updates"]
    assert harness.file_names("slots", "0", "updates") == []
    harness.assert_queues_empty()


def test_a_rejected_update_is_removed_and_the_reason_is_reported(harness: WorkerHarness) -> None:
    harness.issue("t1")
    with harness.serving(harness.worker()):
        harness.next_update()
        harness.put_receipt("t1", "rejected", "staleness 30 is over the limit of 20")
        assert "staleness 30" in harness.wait_for_event("rejected")
    assert harness.file_names("slots", "0", "updates") == []


def test_a_task_that_is_delivered_again_is_not_trained_again(harness: WorkerHarness) -> None:
    steps: list[str] = []
    for _ in range(2):
        harness.issue("t1")
    harness.issue("t1", attempt=2)
    harness.issue("t2", client_id="client_1")
    worker = harness.worker(on_step=lambda task, step: steps.append(task.task_id))
    with harness.serving(worker):
        assert [harness.next_update().task_id, harness.next_update().task_id] == ["t1", "t2"]
        harness.put_receipt("t1")
        harness.issue("t1", attempt=3)  # after the receipt as well
        harness.issue("t3")
        assert harness.next_update().task_id == "t3"
    assert steps == ["t1", "t1", "t2", "t2", "t3", "t3"]
    harness.assert_queues_empty()


def test_a_heartbeat_names_the_task_while_it_is_trained(harness: WorkerHarness) -> None:
    harness.issue("t1", steps=10**5)
    with harness.serving(harness.worker()):
        beat = eventually(
            "training", lambda: [b for b in harness.store.heartbeats(RUN) if b.progress > 0]
        )[0]
        assert (beat.task_id, beat.client_id, beat.state) == ("t1", "client_0", "training")
        assert beat.clients == ("client_0", "client_1")
        harness.put_receipt("t1")
    assert harness.store.heartbeats(RUN) == ()  # the worker has removed it


# Killed


class KilledAt(EmbeddedBroker):
    """Broker that kills the process at the ack of a task, or before or after a publish."""

    def __init__(self, server: EmbeddedServer, point: str) -> None:
        super().__init__(server)
        self._point = point

    def take_task(self, topology: Topology, site: Site, timeout: float) -> TakenTask | None:
        task = super().take_task(topology, site, timeout)
        if task is not None and self._point == "before the ack":
            task.ack = die  # type: ignore[attr-defined]
        return task

    def publish_update(self, topology: Topology, site: Site, message: Message) -> None:
        if self._point == "trained, not sent":
            die()
        super().publish_update(topology, site, message)
        if self._point == "sent, no receipt":
            die()


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_worker(root: Path, model: Model, point: str) -> None:
    """Run a worker that dies at a point, in a process of its own."""
    torch.set_num_threads(1)
    harness = WorkerHarness(root, model)
    harness.start_run()
    harness.issue("t1")
    on_step = die if point == "in training" else lambda *_: None
    worker = harness.worker(broker=KilledAt(harness.server, point), on_step=on_step)
    worker.serve(threading.Event(), threading.Event())


@pytest.mark.parametrize(
    ("point", "kept", "trains"),
    [
        ("before the ack", ["task", "updates"], 2),
        ("in training", ["task", "updates"], 2),
        ("trained, not sent", ["updates"], 0),
        ("sent, no receipt", ["updates"], 0),
    ],
)
def test_a_killed_worker_resumes_where_it_was(
    harness: WorkerHarness, point: str, kept: list[str], trains: int
) -> None:
    assert forked(killed_worker, harness.root, harness.model, point) == -signal.SIGKILL
    assert set(harness.file_names("slots", "0")) >= set(kept)
    if point == "before the ack":
        harness.issue("t1")  # the broker delivers a task that was not acked again
    steps: list[int] = []
    with harness.serving(
        harness.worker(on_step=lambda task, step: steps.append(step.step))
    ) as serving:
        update = harness.next_update()
        assert (update.task_id, update.attempt) == ("t1", 1)
        eventually("the task is let go", lambda: "task" not in harness.file_names("slots", "0"))
        harness.put_receipt("t1")
        harness.wait_for_event("accepted")
        eventually("the queue is empty", lambda: depth(harness) == 0)
    assert len(steps) == trains
    assert serving.result().waiting == 0
    harness.assert_queues_empty()


def depth(harness: WorkerHarness) -> int:
    return harness.broker.depths(harness.topology)[harness.topology.task_queue(LOCAL)].messages


def test_a_stopped_worker_leaves_its_task_for_the_next_start(harness: WorkerHarness) -> None:
    harness.issue("t1", steps=10**5)
    stop = threading.Event()
    served = harness.worker(on_step=lambda *_: stop.set()).serve(stop, stop)
    assert (served.reason, served.abandoned, served.trained) == ("stopped", 1, 0)
    left = claim_slot(harness.settings.state, RUN)
    task = left.task()
    assert task is not None and task.task_id == "t1"
    left.release()


# Schema versions


def test_a_task_of_schema_1_is_answered_in_schema_1(harness: WorkerHarness) -> None:
    _, adapter = unpack_adapter(harness.model.frame)
    older = schema1.adapter(0, adapter)
    harness.store.put_blob(RUN, older)
    blob = BlobRef(sha256=codec.digest(older), nbytes=len(older))
    task = harness.model.task("t1", layout=None, adapter=blob.fields())
    frame = schema1.frame("TrainTask", task.fields())
    harness.broker.publish_task(harness.topology, LOCAL, Message(frame))
    with harness.serving(harness.worker()):
        kind, fields, data = schema1.read(harness.next_message())
    delta = schema1.decode(fields["tensors"], data)
    assert (kind, fields["task_id"], delta.keys()) == ("Update", "t1", adapter.keys())
    assert all(delta[name].shape == adapter[name].shape for name in adapter)


def test_a_task_of_another_layout_than_its_adapters_is_refused(harness: WorkerHarness) -> None:
    harness.issue("t1", layout="0" * 64)
    with harness.serving(harness.worker()):
        refusal, _ = unpack(TaskRefusal, harness.next_message())
    assert "does not have the task's tensor layout" in refusal.reason


def test_an_adapter_that_does_not_fit_the_workers_own_model_is_refused_by_name(
    harness: WorkerHarness,
) -> None:
    _, adapter = unpack_adapter(harness.model.frame)
    foreign = {f"other.{name}": tensor for name, tensor in adapter.items()}
    frame = pack_adapter(0, "fp32", foreign)
    harness.store.put_blob(RUN, frame)
    blob = BlobRef(sha256=codec.digest(frame), nbytes=len(frame))
    harness.issue("t1", layout=TensorLayout.of(foreign).digest, adapter=blob.fields())
    with harness.serving(harness.worker()):
        refusal, _ = unpack(TaskRefusal, harness.next_message())
    assert "the adapter lacks tensor base_model" in refusal.reason


# Refused and unwanted tasks


def test_a_task_of_a_client_whose_rows_are_elsewhere_is_refused_with_the_reason(
    harness: WorkerHarness,
) -> None:
    harness.issue("t1", client_id="client_9", attempt=2)
    with harness.serving(harness.worker()):
        refusal, _ = unpack(TaskRefusal, harness.next_message())
    assert (refusal.task_id, refusal.attempt, refusal.client_id) == ("t1", 2, "client_9")
    assert "no rows of client_9" in refusal.reason
    assert harness.file_names("slots", "0") == ["updates"]


def test_the_reason_of_a_refusal_travels_without_the_paths_of_the_site(
    harness: WorkerHarness,
) -> None:
    harness.issue("t1", client_id="client_9")
    with harness.serving(harness.worker()):
        refusal, _ = unpack(TaskRefusal, harness.next_message())
        (heartbeat,) = eventually(
            "the event is in a heartbeat",
            lambda: [beat for beat in harness.store.heartbeats(RUN) if beat.events],
        )
    published = [refusal.reason, *(event.text for event in heartbeat.events)]
    assert all("[path] has no rows of client_9" in text for text in published)
    assert not any(str(harness.root) in text for text in published)
    assert any(str(harness.root) in text for _, text in harness.events), "shown to the site"


def test_a_worker_that_refuses_three_tasks_in_a_row_ends_with_the_reason(
    harness: WorkerHarness,
) -> None:
    for name in ("t1", "t2", "t3", "t4"):
        harness.issue(name, client_id="client_9")
    with pytest.raises(DataError, match="no rows of client_9"):
        harness.worker().serve(threading.Event(), threading.Event())
    assert [unpack(TaskRefusal, harness.next_message())[0].task_id for _ in range(3)] == [
        "t1",
        "t2",
        "t3",
    ]


def test_training_that_diverges_is_refused_and_not_sent(harness: WorkerHarness) -> None:
    harness.issue("t1", lr=10.0, steps=50, max_grad_norm=1e30)
    harness.issue("t2")
    with harness.serving(harness.worker()):
        first = harness.next_message()
        assert kind_of(first) in (
            "TaskRefusal",
            "Update",
        )  # a huge rate need not diverge everywhere
        assert harness.next_update().task_id == "t2"


def test_a_task_that_is_settled_meanwhile_is_abandoned(harness: WorkerHarness) -> None:
    harness.issue("t1", steps=10**5)
    with harness.serving(harness.worker()) as serving:
        eventually("training", lambda: [b for b in harness.store.heartbeats(RUN) if b.progress > 0])
        harness.put_receipt("t1", "rejected", "phase over")
        assert harness.wait_for_event("abandoned") == "t1: settled already: phase over"
    assert (serving.result().abandoned, serving.result().trained) == (1, 0)
    assert harness.file_names("slots", "0") == ["updates"]


def test_a_task_that_grew_too_stale_is_abandoned(harness: WorkerHarness) -> None:
    harness.store.set_info(RUN, info(max_staleness=2))
    harness.issue("t1", steps=10**5)
    with harness.serving(harness.worker()):
        eventually("training", lambda: [b for b in harness.store.heartbeats(RUN) if b.progress > 0])
        harness.store.set_version(RUN, 3)
        assert "staleness over 2" in harness.wait_for_event("abandoned")
    harness.assert_queues_empty()


def test_a_task_whose_version_is_gone_is_abandoned(harness: WorkerHarness) -> None:
    digest = codec.digest(b"gone")
    harness.issue("t1", adapter={"sha256": digest, "nbytes": 4})
    with harness.serving(harness.worker()):
        assert harness.wait_for_event("abandoned") == "t1: version 0 is gone"


def test_a_store_that_came_back_empty_is_waited_for(harness: WorkerHarness) -> None:
    harness.store.execute("FLUSHALL")
    harness.issue("t1")
    with harness.serving(harness.worker()):
        assert "is empty" in harness.wait_for_event("waiting")
        harness.store.put_blob(RUN, harness.model.frame)
        harness.store.set_version(RUN, 0)
        assert harness.next_update().task_id == "t1"


def test_a_message_that_is_no_task_of_this_run_is_rejected_and_the_next_task_is_trained(
    harness: WorkerHarness,
) -> None:
    harness.broker.publish_task(harness.topology, LOCAL, Message(b"train this"))
    harness.issue("t0", run="another")
    harness.issue("t1")
    with harness.serving(harness.worker()):
        reasons = [harness.next_rejection() for _ in range(2)]
        assert "frame" in reasons[0]
        assert reasons[1] == "a task of run another"
        assert harness.next_update().task_id == "t1"


# Base model, several workers, the run's end


def test_a_worker_that_lacks_the_base_model_fetches_it_from_the_coordinator(
    harness: WorkerHarness,
) -> None:
    coordinator = BaseModelServer(harness.store, RUN, harness.model.path, harness.model.ref.digest)
    elsewhere = harness.root / "elsewhere"
    harness.issue("t1")
    told: list[tuple[str, float]] = []
    settings = replace(harness.settings, cache=elsewhere)
    with harness.serving(harness.worker(settings, on_progress=lambda *report: told.append(report))):
        beats = eventually(
            "asked for", lambda: [b for b in harness.store.heartbeats(RUN) if b.wants]
        )
        assert beats[0].wants == harness.model.ref.digest
        assert find_installed(harness.model.ref.digest, elsewhere) is None
        coordinator.answer(beats)
        assert harness.next_update().task_id == "t1"
    assert find_installed(harness.model.ref.digest, elsewhere) is not None
    assert {what for what, _ in told} == {"fetching the base model"}
    fractions = [fraction for _, fraction in told]
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions == sorted(fractions) and len(set(fractions)) > 2  # file by file


def test_a_worker_that_cannot_reach_the_hub_fetches_the_model_from_the_coordinator(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise ModelError("the hub does not answer")

    monkeypatch.setattr(hub, "download", unreachable)
    ref = harness.model.ref.model_copy(update={"kind": "hub", "name": "org/model"})
    harness.issue("t1", base=ref.fields())
    settings = replace(harness.settings, cache=harness.root / "elsewhere")
    with harness.serving(harness.worker(settings)):
        beats = eventually(
            "asked for", lambda: [b for b in harness.store.heartbeats(RUN) if b.wants]
        )
        BaseModelServer(harness.store, RUN, harness.model.path, harness.model.ref.digest).answer(
            beats
        )
        assert harness.next_update().task_id == "t1"


def test_a_model_of_the_hub_is_looked_up_once_and_then_found_by_its_digest(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def download(name: str, *_: object) -> hub.ModelSnapshot:
        found.append(name)
        return hub.ModelSnapshot("a" * 40, harness.model.path)

    monkeypatch.setattr(hub, "download", download)
    ref = harness.model.ref.model_copy(update={"kind": "hub", "name": "org/model"})
    elsewhere = harness.root / "elsewhere"
    with harness.serving(harness.worker(replace(harness.settings, cache=elsewhere))):
        for task_id in ("t1", "t2"):
            harness.issue(task_id, base=ref.fields())
            assert harness.next_update().task_id == task_id
    assert found == ["org/model"]
    path = find_installed(ref.digest, elsewhere)  # as `fccl try` looks for it
    assert path is not None and path.resolve() == harness.model.path.resolve()


def test_a_base_that_is_too_large_to_be_sent_is_refused_with_the_remedy(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (base_source, base_model_server):
        monkeypatch.setattr(module, "MAX_SENT", 1000)
    coordinator = BaseModelServer(harness.store, RUN, harness.model.path, harness.model.ref.digest)
    harness.issue("t1")
    settings = replace(harness.settings, cache=harness.root / "elsewhere")
    with harness.serving(harness.worker(settings)):
        beats = eventually(
            "asked for", lambda: [b for b in harness.store.heartbeats(RUN) if b.wants]
        )
        coordinator.answer(beats)
        refusal = unpack(TaskRefusal, harness.next_message())[0]
        assert "is not sent through Redis" in refusal.reason
        assert "fccl worker --base" in refusal.reason
    coordinator.wait()
    assert "--base DIR" in coordinator.new_problem()
    assert coordinator.new_problem() == ""  # it is reported once
    blobs = harness.store.execute("KEYS", f"fccl:{RUN}:blob:*")
    assert len(blobs) == 2  # the adapter, and the manifest


def test_a_worker_says_that_the_coordinator_does_not_send_the_base_model(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_source, "WAIT_S", 0.0)
    harness.issue("t1")
    settings = replace(harness.settings, cache=harness.root / "elsewhere")
    with harness.serving(harness.worker(settings)):
        assert "has not sent the base model" in harness.wait_for_event("waiting")


def test_a_directory_with_the_base_model_is_used_where_it_is(harness: WorkerHarness) -> None:
    own, elsewhere = harness.root / "own", harness.root / "elsewhere"
    shutil.copytree(harness.model.path, own)
    harness.issue("t1")
    with harness.serving(harness.worker(replace(harness.settings, cache=elsewhere, base=own))):
        assert harness.next_update().task_id == "t1"
    found = find_installed(harness.model.ref.digest, elsewhere)
    assert found is not None and found.resolve() == own.resolve()


def test_a_worker_with_another_base_model_does_not_start(harness: WorkerHarness) -> None:
    harness.store.set_model(RUN, pack(harness.current_model()))
    other = write_sharded_model(harness.root / "other")
    with pytest.raises(ModelError) as caught:
        harness.worker(replace(harness.settings, base=other))
    assert harness.model.ref.digest[:12] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert harness.worker().worker_id == "host-0"  # its slot was given back


def test_a_task_of_another_base_model_than_the_workers_directory_is_refused(
    harness: WorkerHarness,
) -> None:
    other = write_sharded_model(harness.root / "other")
    harness.issue("t1")
    settings = replace(harness.settings, cache=harness.root / "elsewhere", base=other)
    with harness.serving(harness.worker(settings)):
        refusal = unpack(TaskRefusal, harness.next_message())[0]
        assert harness.model.ref.digest[:12] in refusal.reason


def test_workers_share_a_state_directory_and_never_a_slot(harness: WorkerHarness) -> None:
    first, second = harness.worker(), harness.worker()
    assert (first.worker_id, second.worker_id) == ("host-0", "host-1")
    harness.issue("t1", client_id="client_0")
    harness.issue("t2", client_id="client_1")
    with harness.serving(first), harness.serving(second):
        assert {harness.next_update().task_id, harness.next_update().task_id} == {"t1", "t2"}
        for task_id in ("t1", "t2"):
            harness.put_receipt(task_id)
    third = harness.worker()
    assert third.worker_id == "host-0"
    over = threading.Event()
    over.set()
    third.serve(over, over)


def test_a_worker_takes_its_share_of_the_cores_before_every_task(harness: WorkerHarness) -> None:
    settings = replace(harness.settings, compute=replace(COMPUTE, threads=4))
    place = harness.settings.state / "another-run" / "slots" / "0"
    place.mkdir(parents=True)
    steps: list[int] = []
    on_step = lambda task, step: steps.append(torch.get_num_threads())  # noqa: E731
    with harness.serving(harness.worker(settings, on_step=on_step)):
        for task_id, pid in (("t1", "none"), ("t2", os.getppid()), ("t3", "none")):
            (place / "pid").write_text(str(pid))
            harness.issue(task_id)
            assert harness.next_update().task_id == task_id
            if task_id == "t2":
                [beat] = harness.store.heartbeats(RUN)
                assert beat.device == "cpu, 2 threads"
    assert steps == [4, 4, 2, 2, 4, 4]


def test_a_client_that_another_process_trains_is_waited_for(harness: WorkerHarness) -> None:
    harness.issue("t1")
    with harness.serving(harness.worker()):
        with client_lock(harness.settings.state, RUN, "client_0", 10.0):
            assert "client_0" in harness.wait_for_event("waiting")
            assert harness.updates.receive(0) is None
        assert harness.next_update().task_id == "t1"


def test_an_update_that_was_settled_while_the_worker_was_away_is_not_sent(
    harness: WorkerHarness,
) -> None:
    assert (
        forked(killed_worker, harness.root, harness.model, "trained, not sent") == -signal.SIGKILL
    )
    harness.put_receipt("t1", "rejected", "phase over")
    with harness.serving(harness.worker()):
        assert "phase over" in harness.wait_for_event("rejected")
    harness.assert_queues_empty()


def test_a_worker_without_any_rows_fails_before_it_takes_a_task(harness: WorkerHarness) -> None:
    harness.issue("t1")
    with pytest.raises(DataError, match="nowhere") as caught:
        harness.worker(replace(harness.settings, data=harness.root / "nowhere"))
    assert "--data" in caught.value.remedy
    assert depth(harness) == 1


def test_a_worker_ends_when_another_run_takes_the_name(harness: WorkerHarness) -> None:
    with harness.serving(harness.worker()) as serving:
        harness.store.set_run(NAME, "run-2")
        assert "another run" in serving.result(60).reason


def test_a_run_that_is_over_is_not_joined(harness: WorkerHarness) -> None:
    harness.finish_run()
    stop = threading.Event()

    def on_event(kind: WorkerEventKind, text: str) -> None:
        harness.events.append((kind, text))
        stop.set()

    assert find_run(harness.store, NAME, stop, on_event) is None
    assert "the last one is finished" in harness.events[0][1]


def test_deleted_queues_are_reported_unless_the_run_is_over(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DRAIN_S", 0.5)

    def end(task: TrainTask, step: StepReport) -> None:
        if step.step == step.steps:  # the update will find no queue
            if task.task_id == "t2":
                harness.finish_run()
            harness.broker.delete(harness.topology)

    for task_id in ("t1", "t2"):
        harness.events.clear()
        harness.broker.declare(harness.topology)
        harness.issue(task_id)
        with harness.serving(harness.worker(on_step=end)) as serving:
            harness.wait_for_event("trained")
            if task_id == "t1":
                assert "does not exist" in harness.wait_for_event("waiting")
                harness.put_receipt("t1", "rejected")
                harness.wait_for_event("rejected")
            else:
                assert serving.result(60).waiting == 1
        assert ("waiting" in dict(harness.events)) == (task_id == "t1")
        harness.store.set_info(RUN, info())


# Errors of libraries


def failing_on(client: str, error: Exception) -> Callable[[TrainTask, StepReport], None]:
    """Return a callback that raises within the training of one client."""

    def on_step(task: TrainTask, _: StepReport) -> None:
        if task.client_id == client:
            raise error

    return on_step


def test_an_error_of_a_library_is_a_refusal_without_its_text_and_is_logged_once(
    harness: WorkerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    error = IndexError("index out of range in self: words of a user")
    worker = harness.worker(on_step=failing_on("client_1", error))
    for number in range(5):
        harness.issue(f"t{number}", client_id="client_1")
    harness.issue("t5")
    with harness.serving(worker):
        refusals = [unpack(TaskRefusal, harness.next_message())[0] for _ in range(5)]
        assert harness.next_update().task_id == "t5"  # the worker goes on with its other client
    reason = refusals[0].reason
    assert reason.startswith("IndexError in task t0 of client_1; the traceback is in")
    assert "words of a user" not in reason
    [record] = caplog.records
    assert record.name == "fccl.worker" and record.exc_info is not None


def test_a_lack_of_memory_is_a_refusal_with_a_remedy(harness: WorkerHarness) -> None:
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 TB")
    harness.issue("t1")
    with harness.serving(harness.worker(on_step=failing_on("client_0", error))):
        refusal, _ = unpack(TaskRefusal, harness.next_message())
    assert refusal.reason.startswith("out of memory in task t1 of client_0; lower model.max_length")


def test_a_task_that_killed_the_worker_three_times_is_refused(harness: WorkerHarness) -> None:
    for _ in range(task_support.MAX_CRASHES):
        died = forked(killed_worker, harness.root, harness.model, "in training")
        assert died == -signal.SIGKILL
    harness.issue("t2")
    with harness.serving(harness.worker()):
        refusal, _ = unpack(TaskRefusal, harness.next_message())
        assert harness.next_update().task_id == "t2"
    assert refusal.task_id == "t1"
    assert "ended 3 times while it ran t1" in refusal.reason
    assert "killed for lack of memory" in refusal.reason


def test_a_task_that_is_left_for_the_next_start_is_no_crash(harness: WorkerHarness) -> None:
    harness.issue("t1", steps=10**5)
    for _ in range(task_support.MAX_CRASHES + 1):
        stop = threading.Event()
        harness.worker(on_step=lambda *_, stop=stop: stop.set()).serve(stop, stop)
    assert "crashes" not in harness.file_names("slots", "0")
    assert all(kind is not WorkerEventKind.REFUSED for kind, _ in harness.events)
