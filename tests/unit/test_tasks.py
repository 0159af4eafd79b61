"""The message of a task: hyper-parameters of its phase, the rate of its version."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from common.config import AggregationConfig, PhaseConfig, ScheduleConfig
from common.records import BaseRef, LoraSpec, VersionSummary
from coordinator.state import Client, OpenTask, Plan
from coordinator.tasks import TaskTemplate, learning_rate, message

BASE = BaseRef(name="offline:gpt2-micro", kind="offline", digest="a" * 64)


def test_the_rate_falls_along_a_cosine_to_a_tenth() -> None:
    phase = PhaseConfig(lr=1.0, versions=10)
    rates = [learning_rate(phase, done) for done in (0, 5, 10)]
    assert rates == pytest.approx([1.0, 0.55, 0.1])


def test_a_constant_rate_stays() -> None:
    phase = PhaseConfig(lr=0.5, versions=10, lr_schedule="constant")
    assert {learning_rate(phase, done) for done in range(10)} == {0.5}


def test_a_message_names_the_newest_attempt_and_counts_versions_within_its_phase() -> None:
    phases = (PhaseConfig(versions=4), PhaseConfig(versions=2, lr=1.0, local_steps=3))
    clients = MappingProxyType({"c0": Client("c0", "local", 9)})
    plan = Plan(phases, ScheduleConfig(), AggregationConfig(), clients)
    template = TaskTemplate("run", BASE, LoraSpec(), 64, "int8", 10.0)
    task = OpenTask("t000001", "c0", 1, 7, (4, 5), 0.0, 60.0)
    base = VersionSummary(version=5, phase=1, at=0.0, sha256="b" * 64, nbytes=3)
    sent = message(plan, template, task, base, 1.0)
    assert (sent.attempt, sent.base_version, sent.seed) == (2, 5, 7)
    assert (sent.adapter.sha256, sent.adapter.nbytes) == ("b" * 64, 3)
    assert sent.training.steps == 3
    assert sent.training.lr == pytest.approx(0.55)  # halfway through the second phase
