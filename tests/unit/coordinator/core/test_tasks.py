"""Task messages: hyperparameters of the phase, learning rate of the version."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from common.config.config import AggregationConfig, PhaseConfig, ScheduleConfig
from common.protocol.tasks import BaseRef, BlobRef, LoraSpec
from common.protocol.versions import VersionSummary
from coordinator.core.state import Client, EvaluationPlan, OpenEvaluation, OpenTask, Plan
from coordinator.core.tasks import (
    Candidate,
    TaskTemplate,
    evaluation_message,
    learning_rate,
    task_message,
)

VERSIONS = [
    VersionSummary(version=v, phase=0, at=0.0, sha256=f"{v}" * 64, nbytes=v) for v in range(7)
]
BASE = BaseRef(name="offline:gpt2-micro", kind="offline", digest="a" * 64)


def test_the_learning_rate_falls_along_a_cosine_to_a_tenth() -> None:
    phase = PhaseConfig(lr=1.0, versions=10)
    rates = [learning_rate(phase, done) for done in (0, 5, 10)]
    assert rates == pytest.approx([1.0, 0.55, 0.1])


def test_a_constant_learning_rate_does_not_change() -> None:
    phase = PhaseConfig(lr=0.5, versions=10, lr_schedule="constant")
    assert {learning_rate(phase, done) for done in range(10)} == {0.5}


def test_a_message_names_the_newest_attempt_and_counts_versions_within_its_phase() -> None:
    phases = (PhaseConfig(versions=4), PhaseConfig(versions=2, lr=1.0, local_steps=3))
    clients = MappingProxyType({"c0": Client("c0", "local", {"sft": 9})})
    plan = Plan(phases, ScheduleConfig(), AggregationConfig(), clients)
    template = TaskTemplate("run", BASE, LoraSpec(), (), 64, "int8", 10.0)
    task = OpenTask("t000001", "c0", 1, 7, (4, 5), 0.0, 60.0)
    sent = task_message(plan, template, task, VERSIONS.__getitem__, 1.0)
    assert (sent.attempt, sent.base_version, sent.seed) == (2, 5, 7)
    assert (sent.adapter.sha256, sent.adapter.nbytes) == ("5" * 64, 5)
    assert sent.training.steps == 3
    assert sent.training.lr == pytest.approx(0.55)  # halfway through the second phase


def test_tasks_of_a_preference_phase_all_name_the_version_it_began_with() -> None:
    phases = (PhaseConfig(versions=4), PhaseConfig(objective="dpo", versions=2, beta=0.3))
    clients = MappingProxyType({"c0": Client("c0", "local", {"sft": 9, "va": 5})})
    plan = Plan(phases, ScheduleConfig(), AggregationConfig(), clients)
    template = TaskTemplate("run", BASE, LoraSpec(), (), 64, "int8", 10.0)
    for base in (4, 5):
        task = OpenTask("t000001", "c0", 1, 7, (base,), 0.0, 60.0)
        sent = task_message(plan, template, task, VERSIONS.__getitem__, 1.0)
        assert sent.reference is not None and sent.reference.sha256 == "4" * 64
        assert sent.dpo is not None and sent.dpo.beta == 0.3
    first = task_message(
        plan, template, OpenTask("t1", "c0", 0, 7, (2,), 0.0, 60.0), VERSIONS.__getitem__, 1.0
    )
    assert first.reference is None and first.dpo is None


def test_preferences_without_a_phase_before_them_compare_with_the_base_model() -> None:
    phases = (PhaseConfig(objective="dpo", versions=4),)
    plan = Plan(phases, ScheduleConfig(), AggregationConfig(), MappingProxyType({}))
    assert plan.reference_version(0) == 0
    assert plan.reference_version(1) is None  # the plan is over


def test_labels_travel_with_classification_only() -> None:
    clients = MappingProxyType({"c0": Client("c0", "local", {"cls": 9})})
    template = TaskTemplate("run", BASE, None, ("no", "yes"), 64, "int8", 10.0)
    task = OpenTask("t1", "c0", 0, 7, (0,), 0.0, 60.0)
    phases = (PhaseConfig(objective="classification"),)
    plan = Plan(phases, ScheduleConfig(), AggregationConfig(), clients)
    sent = task_message(plan, template, task, VERSIONS.__getitem__, 1.0)
    assert sent.labels == ("no", "yes") and sent.lora is None
    assert sent.training.logit_adjustment == 1.0


def test_an_evaluation_names_its_version_and_the_objective_and_reference_of_its_phase() -> None:
    phases = (PhaseConfig(versions=4), PhaseConfig(objective="dpo", versions=2, beta=0.3))
    plan = Plan(
        phases,
        ScheduleConfig(),
        AggregationConfig(),
        MappingProxyType({}),
        EvaluationPlan(federated=True, deadline_s=30.0),
    )
    template = TaskTemplate("run", BASE, LoraSpec(), (), 64, "int8", 10.0, layout="b" * 64)
    open_one = OpenEvaluation("e000001", "c0", 6, 1, 0.0, 60.0, attempt=2)
    sent = evaluation_message(plan, template, open_one, VERSIONS.__getitem__, None, 20, 1.0)
    assert (sent.task_id, sent.attempt, sent.version, sent.phase) == ("e000001", 2, 6, 1)
    assert (sent.objective, sent.max_rows, sent.deadline_s) == ("dpo", 20, 30.0)
    assert sent.adapter.sha256 == "6" * 64
    assert sent.reference is not None and sent.reference.sha256 == "4" * 64
    assert sent.dpo is not None and sent.dpo.beta == 0.3
    assert sent.candidate is None
    # The end of the first phase is evaluated with that phase too.
    earlier = OpenEvaluation("e000002", "c0", 4, 0, 0.0, 60.0, candidate="t000001")
    candidate = BlobRef(sha256="c" * 64, nbytes=9)
    sent = evaluation_message(
        plan, template, earlier, VERSIONS.__getitem__, Candidate("c1", candidate), 20, 1.0
    )
    assert (sent.objective, sent.reference, sent.dpo) == ("sft", None, None)
    assert sent.candidate == candidate
