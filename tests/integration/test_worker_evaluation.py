"""Tests of evaluations at a worker, with a broker and a store in this process.

The tests play the coordinator, as those of `test_worker.py` do.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from broker.protocol import LOCAL, Message
from common.protocol import codec
from common.protocol.adapter_frame import pack_adapter, unpack_adapter
from common.protocol.evaluations import EvalResult, EvalTask
from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import BlobRef, TaskRefusal
from common.protocol.wire import pack, unpack
from learning.data import rows, splits
from learning.data.rows import write
from learning.evaluation import row_scores
from learning.synthetic.instructions import make_instructions
from learning.synthetic.preferences import make_preferences
from tests.support.processes import eventually
from tests.support.worker_harness import RUN, Model, WorkerHarness, make_model, quick_workers
from tests.support.worker_records import eval_task
from worker.events import WorkerEventKind
from worker.service import Worker
from worker.settings.settings import SiteSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Model:
    return make_model(tmp_path_factory.mktemp("worker-cache"), model_cache)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quick_workers(monkeypatch):
        yield


class EvaluationHarness(WorkerHarness):
    """Harness whose tasks are evaluations."""

    def evaluate(self, task_id: str = "e1", **changed: Any) -> EvalTask:
        """Put an evaluation of version 0 on the queue."""
        train = self.model.task("t0")
        fields = {"base": train.base.fields(), "adapter": train.adapter.fields()}
        task = eval_task(task_id, **(fields | {"layout": self.model.layout} | changed))
        self.broker.publish_task(self.topology, LOCAL, Message(pack(task)))
        return task

    def put_adapter(self, shift: float) -> dict[str, Any]:
        """Publish version 0 with all elements shifted, and return its reference."""
        _, adapter = unpack_adapter(self.model.frame)
        changed = {name: tensor + shift for name, tensor in adapter.items()}
        frame = pack_adapter(0, "fp32", changed)
        self.store.put_blob(RUN, frame)
        return BlobRef(sha256=codec.digest(frame), nbytes=len(frame)).fields()

    def next_result(self) -> EvalResult:
        return unpack(EvalResult, self.next_message())[0]

    def next_refusal(self) -> TaskRefusal:
        return unpack(TaskRefusal, self.next_message())[0]

    def worker_with(self, **site_settings: Any) -> Worker:
        own = SiteSettings.model_validate(site_settings)
        return self.worker(replace(self.settings, site_settings=own))

    def validation_rows(self) -> Sequence[rows.Row]:
        path = self.settings.data / "client_0_sft.jsonl"
        return splits.split_rows(rows.read("sft", path).rows).validation


@pytest.fixture
def harness(tmp_path: Path, model: Model) -> Iterator[EvaluationHarness]:
    harness = EvaluationHarness(tmp_path, model)
    (tmp_path / "clients").mkdir()
    write(tmp_path / "clients" / "client_0_sft.jsonl", tuple(make_instructions(0, 60)))
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
    assert (result.task_id, result.client_id, result.version) == ("e1", "client_0", 0)
    assert (result.worker_id, result.candidate_sums) == ("host-0", None)
    assert result.sums.rows == len(harness.validation_rows()) > 0
    assert result.sums.bytes > 0 and 0 < result.sums.loss / result.sums.tokens < 20
    assert result.nbytes == len(harness.model.frame)
    text = dict(harness.events)[WorkerEventKind.EVALUATED]
    assert text.startswith("version 0 for client_0: ") and "nats per token on" in text
    served = serving.result()
    assert (served.evaluated, served.trained, served.settled, served.waiting) == (1, 0, 0, 0)
    assert harness.file_names("slots", "0", "results") == []
    harness.assert_queues_empty()


def test_an_evaluation_between_two_tasks_changes_neither(harness: EvaluationHarness) -> None:
    trained = []
    with harness.serving(harness.worker()):
        for task_id in ("t1", "t2"):
            harness.issue(task_id)
            trained.append(harness.next_update())
            harness.evaluate(f"e{task_id}", adapter=harness.put_adapter(0.1))
            assert harness.next_result().task_id == f"e{task_id}"
    assert trained[0].sha256 == trained[1].sha256


def test_a_candidate_is_evaluated_on_the_rows_of_the_version(harness: EvaluationHarness) -> None:
    with harness.serving(harness.worker()):
        harness.evaluate(candidate=harness.put_adapter(0.1))
        first = harness.next_result()
        harness.evaluate("e2", adapter=harness.put_adapter(0.1))
        alone = harness.next_result()
    assert first.candidate_sums is not None
    assert first.candidate_sums.loss != first.sums.loss
    assert (first.candidate_sums.rows, first.candidate_sums.tokens) == (
        first.sums.rows,
        first.sums.tokens,
    )
    assert alone.sums == first.candidate_sums


def test_a_version_that_is_asked_for_again_is_neither_fetched_nor_computed(
    harness: EvaluationHarness,
) -> None:
    with harness.serving(harness.worker()):
        harness.evaluate()
        before = harness.next_result()
        candidate = harness.put_adapter(0.2)
        harness.evaluate("e2", candidate=candidate)
        again = harness.next_result()
    assert again.sums == before.sums
    assert again.nbytes == candidate["nbytes"]


def test_rows_beyond_the_limit_are_left_out_the_same_ones_each_time(
    harness: EvaluationHarness,
) -> None:
    sums = []
    with harness.serving(harness.worker()), harness.serving(harness.worker()):
        for limit in (1, 2, 2, 100):
            harness.evaluate(f"e{len(sums)}", max_rows=limit)
            sums.append(harness.next_result().sums)
    assert [each.rows for each in sums] == [1, 2, 2, len(harness.validation_rows())]
    assert sums[1] == sums[2]
    assert sums[0].loss < sums[1].loss < sums[3].loss


def test_rewards_of_pairs_compare_with_the_reference(harness: EvaluationHarness) -> None:
    write(harness.settings.data / "client_0_va.jsonl", tuple(make_preferences(0, 60)))
    reference = harness.model.task("t0").adapter.fields()
    pairs = {"objective": "dpo", "dpo": {"beta": 0.5}, "reference": reference, "max_length": 300}
    with harness.serving(harness.worker()):
        harness.evaluate(**pairs)
        own = harness.next_result().sums
        harness.evaluate("e2", adapter=harness.put_adapter(0.2), **pairs)
        other = harness.next_result()
        harness.evaluate("e3", **(pairs | {"reference": None}))
        assert "names no reference" in harness.next_refusal().reason
    assert (own.margin, own.rewarded) == (0.0, own.rows / 2)
    assert own.loss == pytest.approx(0.693147 * own.rows, rel=1e-5)
    assert other.sums.margin != 0 and other.sums.rows == own.rows
    assert other.nbytes == harness.put_adapter(0.2)["nbytes"]  # the reference is known


# Refusals


def test_a_site_that_does_not_evaluate_declines_for_good(harness: EvaluationHarness) -> None:
    harness.evaluate()
    harness.issue("t1", holdout_budget=0.1)
    with harness.serving(harness.worker_with(evaluation=False)):
        refusal = harness.next_refusal()
        assert harness.next_update().task_id == "t1"
    assert refusal.declines
    assert refusal.reason == "this site does not evaluate: evaluation = false in its worker.toml"


GONE = {"sha256": "0" * 64, "nbytes": 4}
IMPOSSIBLE: Sequence[tuple[dict[str, Any], str]] = (
    ({"client_id": "client_9"}, "client_9 has no rows for sft here"),
    ({"objective": "kto", "kto": {}}, "client_0 has no rows for kto here"),
    ({"max_length": 16}, "no validation row of client_0 can be used at 16 tokens"),
    ({"version": 3}, "the adapter is of version 0, not 3"),
    ({"layout": "0" * 64}, "does not have the task's tensor layout"),
    ({"adapter": GONE}, "version 0 of e6 is gone from the store"),
    ({"candidate": GONE}, "the candidate of e7 is gone from the store"),
)


def test_evaluations_that_cannot_be_done_are_refused_with_the_reason_and_training_goes_on(
    harness: EvaluationHarness,
) -> None:
    with harness.serving(harness.worker()):
        for number, (changed, reason) in enumerate(IMPOSSIBLE, 1):
            harness.evaluate(f"e{number}", **changed)
            refusal = harness.next_refusal()
            assert reason in refusal.reason
            assert (refusal.task_id, refusal.declines) == (f"e{number}", None)
            assert str(harness.root) not in refusal.reason
        harness.issue("t1")
        assert harness.next_update().task_id == "t1"


def test_a_client_with_too_few_rows_for_a_validation_set_says_so(
    harness: EvaluationHarness,
) -> None:
    write(harness.settings.data / "client_0_sft.jsonl", tuple(make_instructions(0, 2)))
    harness.evaluate()
    with harness.serving(harness.worker()):
        assert "too few sft rows for a validation set" in harness.next_refusal().reason


def test_an_adapter_whose_loss_is_not_finite_is_refused(harness: EvaluationHarness) -> None:
    harness.evaluate(candidate=harness.put_adapter(1e30))
    with harness.serving(harness.worker()):
        assert "the candidate: the loss is not a finite number" in harness.next_refusal().reason


# Interrupted


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score the rows again and again, as if there were no end of them."""
    score = row_scores.score_in_parts

    def repeat(*args: Any, **options: Any) -> NoReturn:
        while True:
            score(*args, **options)

    monkeypatch.setattr(row_scores, "score_in_parts", repeat)


def evaluating(harness: EvaluationHarness) -> Heartbeat:
    """Wait until a worker evaluates, and return its heartbeat."""
    return eventually(
        "evaluating", lambda: [b for b in harness.store.heartbeats(RUN) if b.state == "evaluating"]
    )[0]


@pytest.mark.usefixtures("endless")
def test_an_evaluation_renews_its_lease_until_it_is_settled(harness: EvaluationHarness) -> None:
    harness.evaluate()
    with harness.serving(harness.worker()) as serving:
        beat = evaluating(harness)
        assert (beat.task_id, beat.client_id, beat.base_version) == ("e1", "client_0", 0)
        harness.store.set_version(RUN, 100)  # however old the version is
        harness.put_receipt("e1", "rejected", "too late")
        assert harness.wait_for_event("abandoned") == "e1: settled already: too late"
        eventually("waiting", lambda: [b for b in harness.store.heartbeats(RUN) if not b.task_id])
    assert (serving.result().abandoned, serving.result().evaluated) == (1, 0)
    assert harness.file_names("slots", "0") == ["updates"]
    harness.assert_queues_empty()


@pytest.mark.usefixtures("endless")
def test_a_stopped_worker_leaves_its_evaluation_for_the_next_start(
    harness: EvaluationHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.evaluate()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(harness.worker().serve, stop, stop)
        evaluating(harness)
        stop.set()
        assert (serving.result(60).abandoned, serving.result().evaluated) == (1, 0)
    monkeypatch.undo()
    with harness.serving(harness.worker()):
        assert harness.next_result().task_id == "e1"


def test_a_result_that_an_earlier_worker_left_is_sent(harness: EvaluationHarness) -> None:
    harness.evaluate()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(harness.worker().serve, stop, stop)
        result = harness.next_result()
        stop.set()
        assert serving.result(60).waiting == 1
    with harness.serving(harness.worker()):
        assert harness.next_result() == result
        harness.put_receipt("e1")
        harness.wait_for_event("accepted")
