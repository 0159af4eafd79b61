"""Messages to workers: what to train or to evaluate, and the current model for those without.

An update's path begins here. `coordinator/storage/step_writer.py` puts the task message into the
journal's outbox, and the service publishes it to the broker, where `worker/service.py` takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from common.config.config import PhaseConfig
from common.protocol.evaluations import EvalTask
from common.protocol.fields import CodecName
from common.protocol.tasks import (
    BaseRef,
    BlobRef,
    LocalTraining,
    LoraSpec,
    ModelPrecision,
    ObjectivePlugin,
    PromptSpec,
    RefactoredRanks,
    TrainTask,
)
from common.protocol.versions import CurrentModel, VersionSummary
from coordinator.core.state import OpenEvaluation, OpenTask, Plan

FINAL_LR = 0.1  # share of the phase's learning rate at which the cosine ends


@dataclass(frozen=True)
class ClientTemplate:
    """Fields of the tasks of a client whose rank is below that of the versions."""

    rank: int
    lora: LoraSpec
    layout: str


@dataclass(frozen=True)
class TaskTemplate:
    """Fields that every task of a run has in common.

    Attributes:
        layout: Digest of the adapter's tensor layout; None in a run that began with schema 1. It
            keeps schema 1, so that its sites need not be upgraded before it ends.
        holdout_budget: See `TrainTask`; None if the contribution needs the loss on the holdout.
        frozen, refactored: See `TrainTask`.
        clients: Clients with a rank of their own.
        plugins: Plug-in objectives of the phases, by name.
    """

    run: str
    base: BaseRef
    lora: LoraSpec | None
    labels: tuple[str, ...]
    max_length: int
    update_codec: CodecName
    deadline_s: float
    prompt: PromptSpec | None = None  # of a run that does not classify
    layout: str | None = None
    precision: ModelPrecision | None = None
    holdout_budget: float | None = None
    frozen: BlobRef | None = None
    refactored: RefactoredRanks | None = None
    clients: Mapping[str, ClientTemplate] = field(default_factory=lambda: MappingProxyType({}))
    plugins: Mapping[str, ObjectivePlugin] = field(default_factory=lambda: MappingProxyType({}))

    def plugin(self, phase: PhaseConfig) -> ObjectivePlugin | None:
        """Return what changes how a phase's objective is trained."""
        return None if phase.plugin is None else self.plugins[phase.plugin]

    def rank(self, client_id: str) -> int | None:
        """Return the rank of a client; None if it is that of the versions."""
        own = self.clients.get(client_id)
        return None if own is None else own.rank

    def of(self, client_id: str) -> TaskTemplate:
        """Return the template of the tasks of a client."""
        own = self.clients.get(client_id)
        return self if own is None else replace(self, lora=own.lora, layout=own.layout)


@dataclass(frozen=True)
class Candidate:
    """An adapter with the update of a client applied."""

    client_id: str
    blob: BlobRef


def learning_rate(phase: PhaseConfig, done: int) -> float:
    """Return the learning rate of a task that starts after `done` of the phase's versions.

    With a cosine schedule: lr · (f + (1 − f)(1 + cos(π · done / versions)) / 2), f = 0.1.
    """
    if phase.lr_schedule == "constant":
        return phase.lr
    cosine = (1 + math.cos(math.pi * done / phase.versions)) / 2
    return phase.lr * (FINAL_LR + (1 - FINAL_LR) * cosine)


def task_message(
    plan: Plan,
    template: TaskTemplate,
    task: OpenTask,
    version: Callable[[int], VersionSummary],
    now: float,
) -> TrainTask:
    """Return the message for a task's newest attempt; `version` returns a version by number."""
    reference = plan.reference_version(task.phase)
    phase = plan.phases[task.phase]
    template, rank = template.of(task.client_id), template.rank(task.client_id)
    done = task.base_version - (plan.phase_end(task.phase) - phase.versions)
    return TrainTask(
        task_id=task.task_id,
        attempt=task.attempt,
        run=template.run,
        client_id=task.client_id,
        phase=task.phase,
        objective=phase.objective,
        training=LocalTraining(
            steps=task.steps or phase.local_steps,
            epochs=phase.local_epochs,
            batch_size=phase.batch_size,
            lr=learning_rate(phase, done),
            max_grad_norm=phase.max_grad_norm,
            prox_mu=phase.prox_mu,
            max_length=template.max_length,
            logit_adjustment=phase.logit_adjustment if phase.kind == "cls" else 0.0,
        ),
        base=template.base,
        base_version=task.base_version,
        adapter=version(task.base_version).blob(rank),
        lora=template.lora,
        dpo=phase.dpo,
        kto=phase.kto,
        reference=None if reference is None else version(reference).blob(rank),
        labels=template.labels if phase.objective == "classification" else (),
        prompt=_prompt(template, phase),
        layout=template.layout,
        precision=template.precision,
        holdout_budget=template.holdout_budget,
        frozen=template.frozen,
        refactored=template.refactored,
        clip_norm=plan.privacy.clip_norm,
        plugin=template.plugin(phase),
        update_codec=template.update_codec,
        seed=task.seed,
        issued_at=now,
        deadline_s=template.deadline_s,
    )


def evaluation_message(
    plan: Plan,
    template: TaskTemplate,
    evaluation: OpenEvaluation,
    version: Callable[[int], VersionSummary],
    candidate: Candidate | None,
    max_rows: int,
    now: float,
) -> EvalTask:
    """Return the message for an evaluation's newest attempt.

    Args:
        version: Returns the summary of a version by its number.
        candidate: The adapter with an update applied, where the evaluation scores one. The task
            then has the rank of the update's client.
        max_rows: Rows of its client that count.
    """
    reference = plan.reference_version(evaluation.phase)
    phase = plan.phases[evaluation.phase]
    rank = None if candidate is None else template.rank(candidate.client_id)
    if candidate is not None:
        template = template.of(candidate.client_id)
    assert template.layout is not None  # runs of schema 1 have no evaluations
    return EvalTask(
        task_id=evaluation.task_id,
        attempt=evaluation.attempt,
        run=template.run,
        client_id=evaluation.client_id,
        version=evaluation.version,
        phase=evaluation.phase,
        objective=phase.objective,
        base=template.base,
        adapter=version(evaluation.version).blob(rank),
        candidate=None if candidate is None else candidate.blob,
        reference=None if reference is None else version(reference).blob(rank),
        lora=template.lora,
        max_length=template.max_length,
        dpo=phase.dpo,
        kto=phase.kto,
        labels=template.labels if phase.objective == "classification" else (),
        prompt=_prompt(template, phase),
        layout=template.layout,
        precision=template.precision,
        frozen=template.frozen,
        max_rows=max_rows,
        issued_at=now,
        deadline_s=plan.evaluation.deadline_s,
    )


def current_model(plan: Plan, template: TaskTemplate, version: VersionSummary) -> CurrentModel:
    """Return the newest version, with the phase that comes next, for workers without a task."""
    number = min(plan.phase_of(version.version), len(plan.phases) - 1)
    phase = plan.phases[number]
    return CurrentModel(
        run=template.run,
        version=version.version,
        phase=number,
        objective=phase.objective,
        base=template.base,
        adapter=version.blob(),
        lora=template.lora,
        max_length=template.max_length,
        dpo=phase.dpo,
        kto=phase.kto,
        labels=template.labels if phase.objective == "classification" else (),
        prompt=_prompt(template, phase),
        precision=template.precision,
        min_batch_size=_min_batch_size(plan, number) if template.layout else None,
        frozen=template.frozen,
        refactored=template.refactored,
    )


def _min_batch_size(plan: Plan, phase: int) -> int:
    return min(each.batch_size for each in plan.phases[phase:])


def _prompt(template: TaskTemplate, phase: PhaseConfig) -> PromptSpec | None:
    """Return the run's prompt form with the setting `turns` of a phase."""
    if template.prompt is None:
        return None
    return template.prompt.model_copy(update={"turns": phase.turns})
