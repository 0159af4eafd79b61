"""Plans of every objective over real servers: two phases, a classifier, all parameters trained."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from common.protocol.tasks import TrainTask
from tests.support.federations import LORA, Federation, check_applied_once, phase, plan, planned
from tests.support.servers import Server
from tests.support.tcp_proxy import Recorder, records

pytestmark = [pytest.mark.servers, pytest.mark.slow]

STEPS = "local_steps = 2"


@dataclass
class Finished:
    """Finished run, and the tasks that its coordinators issued."""

    run: Federation
    tasks: list[TrainTask]

    def meta(self, key: str) -> Any:
        return json.loads(self.run.rows(f"SELECT value FROM meta WHERE key = '{key}'")[0][0])

    def stats(self, phase: int) -> list[tuple[str, int, dict[str, Any]]]:
        """Return client, base version and statistics of every update of a phase."""
        found = self.run.rows(
            "SELECT accepted.client_id, base_version, stats FROM accepted JOIN task USING (task_id)"
            f" WHERE phase = {phase} ORDER BY seq"
        )
        return [(client, base, json.loads(stats)) for client, base, stats in found]

    def tensors(self, version: int) -> dict[str, np.ndarray[Any, Any]]:
        [path] = self.directory(version).glob("*.safetensors")
        return dict(load_file(path))

    def directory(self, version: int) -> Path:
        return self.run.run / "versions" / f"{version:06d}"

    def sha256(self, version: int) -> str:
        return str(self.run.lines("progress.jsonl")[version]["sha256"])


# Two phases as one plan, interrupted in the second


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory,
    model_cache: Path,
    rabbitmq: Server,
    redis_server: Server,
) -> Iterator[Finished]:
    """Two versions of sft and four of dpo; the coordinator is killed after version 3."""
    text = plan(phase("sft", 2, STEPS), phase("dpo", 4, STEPS), rows=80, clients=3)
    place = tmp_path_factory.mktemp("interrupted")
    with ExitStack() as stack:
        broker = stack.enter_context(Recorder(rabbitmq.url))
        run = stack.enter_context(planned(place, model_cache, broker.url, redis_server.url, text))
        coordinator, worker = run.coordinator(), run.worker()
        run.reaches(3)
        coordinator.kill()
        assert 3 <= run.version() < 6, "killed too late to be in the middle"
        again = run.coordinator("--resume")
        assert [again.end(), worker.end()] == [0, 0], again.err + worker.err
        yield Finished(run, list(records(broker.sent(), TrainTask)))


def test_a_plan_of_two_phases_completes_after_a_crash_in_the_second(
    interrupted: Finished,
) -> None:
    run = interrupted.run
    assert run.version() == 6
    check_applied_once(run)
    assert [line["phase"] for line in run.lines("progress.jsonl")] == [0, 0, 0, 1, 1, 1, 1]
    assert (run.run / "report" / "report.md").read_text()
    status = run.status()
    assert status is not None and status["info"]["status"] == "finished"


def test_every_preference_task_names_the_version_with_which_sft_ended(
    interrupted: Finished,
) -> None:
    of_dpo = [task for task in interrupted.tasks if task.objective == "dpo"]
    assert {t.reference.sha256 for t in of_dpo if t.reference} == {interrupted.sha256(2)}
    assert all(task.reference for task in of_dpo)
    epochs = dict(
        interrupted.run.rows(
            "SELECT task_id, epoch FROM attempt JOIN task USING (task_id) WHERE phase = 1"
        )
    )
    assert {task.task_id for task in of_dpo} == set(epochs)
    assert set(epochs.values()) == {1, 2}  # issued by both coordinators
    of_sft = [task for task in interrupted.tasks if task.objective == "sft"]
    assert of_sft and {task.reference for task in of_sft} == {None}


def test_each_phase_learns_from_its_own_kind_of_rows(interrupted: Finished) -> None:
    own = interrupted.meta("clients")
    assert all(rows["sft"] != rows["va"] for rows in own.values())  # else the test proves nothing
    for number, kind in enumerate(("sft", "va")):
        reported = {
            (client, stats["num_samples"]) for client, _, stats in interrupted.stats(number)
        }
        assert reported == {(client, own[client][kind]) for client, _ in reported}
        assert reported


def test_preferences_begin_at_the_loss_of_a_model_that_is_its_own_reference(
    interrupted: Finished,
) -> None:
    first = [stats for _, base, stats in interrupted.stats(1) if base == 2]
    later = [stats for _, base, stats in interrupted.stats(1) if base > 2]
    assert first and later
    for stats in first:
        assert stats["loss_before"] == pytest.approx(math.log(2), abs=1e-3)
    assert all(stats["loss_before"] != pytest.approx(math.log(2), abs=1e-6) for stats in later)


# Classification, with LoRA factors and without


@pytest.fixture(scope="module", params=["lora", "full"])
def classified(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    model_cache: Path,
    rabbitmq: Server,
    redis_server: Server,
) -> Iterator[Finished]:
    lora = LORA if request.param == "lora" else "lora = false"
    steps = phase("classification", 2, STEPS)
    text = plan(steps, model="offline:bert-micro", length=64, lora=lora)
    place = tmp_path_factory.mktemp("classified")
    with ExitStack() as stack:
        broker = stack.enter_context(Recorder(rabbitmq.url))
        run = stack.enter_context(planned(place, model_cache, broker.url, redis_server.url, text))
        coordinator, worker = run.coordinator(), run.worker()
        assert [coordinator.end(), worker.end()] == [0, 0], coordinator.err + worker.err
        yield Finished(run, list(records(broker.sent(), TrainTask)))


def test_a_classifier_is_federated_to_its_end(classified: Finished) -> None:
    run = classified.run
    assert run.version() == 2
    check_applied_once(run)
    assert {task.labels for task in classified.tasks} == {("negative", "positive")}
    lines = run.lines("progress.jsonl")
    assert all(0 <= line["accuracy_before"] <= 1 for line in lines[1:])
    assert all(0 <= line["accuracy_after"] <= 1 for line in lines[1:])


def test_the_classification_head_is_sent_and_learned(classified: Finished) -> None:
    begun, ended = classified.tensors(0), classified.tensors(2)
    assert begun.keys() == ended.keys()
    heads = [name for name in begun if "classifier" in name]
    assert {begun[name].shape[0] for name in heads} == {2}
    assert all((begun[name] != ended[name]).any() for name in heads)


def test_a_version_holds_lora_factors_or_all_parameters_as_configured(classified: Finished) -> None:
    names = {path.name for path in classified.directory(2).iterdir()}
    moved = Counter("lora_" in name for name in classified.tensors(2))
    if all(task.lora for task in classified.tasks):
        assert names == {"adapter_model.safetensors", "adapter_config.json"}
        assert moved[True] > moved[False] > 0
    else:
        assert names == {"model.safetensors", "config.json"}
        assert moved[True] == 0


@pytest.mark.parametrize("classified", ["full"], indirect=True)
def test_with_all_parameters_trained_a_version_is_a_complete_model(
    classified: Finished,
) -> None:
    path = classified.directory(2)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        path, local_files_only=True, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.id2label == {0: "negative", 1: "positive"}
    held = classified.tensors(2)
    own = dict(model.named_parameters())
    assert own.keys() == held.keys()
    assert all(torch.equal(own[name], torch.from_numpy(held[name])) for name in own)
    begun = classified.tensors(0)
    still = [name for name in own if (begun[name] == held[name]).all()]
    assert len(still) < len(own) / 4, still  # embeddings of unread words, and no layers
    weights = sum(tensor.size for tensor in held.values())
    uploads = classified.run.rows("SELECT nbytes FROM accepted")
    assert all(weights < nbytes < 2 * weights for (nbytes,) in uploads)  # int8: a byte each
