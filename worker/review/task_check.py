"""Comparison of tasks with the plan that a site was shown."""

from __future__ import annotations

from collections.abc import Iterator

from common.errors import ConfigError
from common.protocol.evaluations import EvalTask
from common.protocol.run_plan import PlannedPhase, RunPlan
from common.protocol.tasks import TrainTask

_ROUNDING = 1 + 1e-9  # of learning rates, which follow from a schedule


def check_planned(plan: RunPlan, task: TrainTask | EvalTask) -> None:
    """Check that a task is one of the plan.

    Raises:
        ConfigError: It is not; the message names the first difference.
    """
    for what, of_task, of_plan in _differences(plan, task):
        raise ConfigError(
            f"task {task.task_id} is not of the plan that this site was shown: {what} is {of_task},"
            f" and in the plan {of_plan}",
            "ask who coordinates the run; a worker that is started again shows the plan of now",
        )


def _differences(plan: RunPlan, task: TrainTask | EvalTask) -> Iterator[tuple[str, object, object]]:
    known = task.phase < len(plan.phases)
    phase = plan.phases[task.phase] if known else plan.phases[-1]
    lora, layout = plan.lora, plan.layout
    for rank in plan.lower_ranks:
        if rank.lora == task.lora:
            lora, layout = rank.lora, rank.layout
    pairs: list[tuple[str, object, object]] = [
        ("base model", task.base.digest[:16], plan.base.digest[:16]),
        ("objective", task.objective, phase.objective if known else "no such phase"),
        ("lora", task.lora, lora),
        ("max_length", _max_length(task), plan.max_length),
        ("layout", task.layout, layout),
    ]
    if isinstance(task, TrainTask):
        training = task.training
        pairs += [
            ("codec", task.update_codec, plan.update_codec),
            ("steps", training.steps, _steps(phase, training.steps)),
            ("epochs", training.epochs, phase.local_epochs),
            ("batch_size", training.batch_size, phase.batch_size),
            ("clip_norm", task.clip_norm, plan.privacy.clip_norm if plan.privacy else None),
            ("plugin", task.plugin, phase.plugin),
        ]
        if training.lr > phase.lr * _ROUNDING:
            pairs.append(("learning rate", training.lr, f"at most {phase.lr}"))
    else:
        pairs += _of_evaluation(plan, task)
    for what, of_task, of_plan in pairs:
        if of_task != of_plan:
            yield what, of_task, of_plan


def _of_evaluation(plan: RunPlan, task: EvalTask) -> list[tuple[str, object, object]]:
    if task.candidate is not None:
        source = plan.contribution_source
        return [("scores of other sites' updates", "federated", source)]
    if plan.evaluation is None:
        return [("evaluation", "asked for", "not")]
    limit = plan.evaluation.max_rows
    return [("number of rows", max(task.max_rows, limit), limit)]


def _steps(phase: PlannedPhase, steps: int) -> object:
    """Return the steps of a task that the plan allows: these, if they are within its limits."""
    if phase.adaptive_steps is None:
        return phase.local_steps
    least, most = phase.adaptive_steps
    return steps if least <= steps <= most else f"{least} to {most}"


def _max_length(task: TrainTask | EvalTask) -> int:
    return task.training.max_length if isinstance(task, TrainTask) else task.max_length
