"""Tests of evaluations at a worker, with a broker and a store in this process.

The tests play the coordinator, as those of `test_worker.py` do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.protocol import LOCAL, Message
from common.protocol import codec
from common.protocol.adapter_frame import pack_adapter, unpack_adapter
from common.protocol.evaluations import EvalResult, EvalTask
from common.protocol.tasks import BlobRef, TaskRefusal
from common.protocol.wire import pack, unpack
from learning.data import rows, splits
from tests.integration.test_worker import Model, WorkerHarness, model, quick  # noqa: F401
from tests.support.worker_records import eval_task
from worker.events import WorkerEventKind


class EvaluationHarness(WorkerHarness):
    """Harness whose tasks are evaluations."""

    def evaluate(self, task_id: str = "e1", **changed: Any) -> EvalTask:
        """Put an evaluation of version 0 on the queue."""
        train = self.model.task("t0")
        fields = {"base": train.base.fields(), "adapter": train.adapter.fields()}
        task = eval_task(task_id, **(fields | {"layout": self.model.layout} | changed))
        self.broker.publish_task(self.topology, LOCAL, Message(pack(task)))
        return task

    def put_adapter(self, scale: float, version: int = 0) -> dict[str, Any]:
        """Publish version 0 times a factor, and return its reference."""
        _, adapter = unpack_adapter(self.model.frame)
        frame = pack_adapter(version, "fp32", {k: v * scale for k, v in adapter.items()})
        self.store.put_blob(self.topology.run, frame)
        return BlobRef(sha256=codec.digest(frame), nbytes=len(frame)).fields()

    def next_result(self) -> EvalResult:
        return unpack(EvalResult, self.next_message())[0]

    def next_refusal(self) -> TaskRefusal:
        return unpack(TaskRefusal, self.next_message())[0]


@pytest.fixture
def harness(tmp_path: Path, model: Model) -> Iterator[EvaluationHarness]:  # noqa: F811
    harness = EvaluationHarness(tmp_path, model)
    harness.start_run()
    yield harness
    harness.stores.close()


def test_an_evaluation_is_answered_with_sums_over_the_validation_rows(
    harness: EvaluationHarness,
) -> None:
    harness.evaluate()
    with harness.serving(harness.worker()) as serving:
        result = harness.next_result()
        assert harness.file_names("slots", "0", "results") == ["e1.1"]
        harness.put_receipt("e1")
        assert harness.wait_for_event("accepted") == "evaluation e1.1 accepted"
    path = harness.settings.data / "client_0_sft.jsonl"
    validation = splits.split_rows(rows.read("sft", path).rows).validation
    assert (result.task_id, result.client_id, result.version) == ("e1", "client_0", 0)
    assert (result.worker_id, result.candidate_sums) == ("host-0", None)
    assert result.sums.rows == len(validation) > 0
    assert result.sums.bytes > 0 and 0 < result.sums.loss / result.sums.tokens < 20
    assert result.nbytes == len(harness.model.frame)
    text = dict(harness.events)[WorkerEventKind.EVALUATED]
    assert text.startswith("version 0 for client_0: ") and "nats per token on" in text
    served = serving.result()
    assert (served.evaluated, served.trained, served.settled, served.waiting) == (1, 0, 0, 0)
    assert harness.file_names("slots", "0", "results") == []
    harness.assert_queues_empty()
