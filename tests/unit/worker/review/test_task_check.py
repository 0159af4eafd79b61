from __future__ import annotations

from typing import Any

import pytest

from common.errors import ConfigError
from common.protocol.evaluations import EvalTask
from common.protocol.run_plan import PlannedEvaluation, PlannedPhase, RunPlan
from tests.support.run_plans import run_plan
from tests.support.worker_records import task
from worker.review.task_check import check_planned

TASK = task(layout="cd" * 32)


def plan(**fields: Any) -> RunPlan:
    """Return the plan that `TASK` belongs to."""
    training = TASK.training
    phase = PlannedPhase(
        objective="sft",
        versions=8,
        local_steps=training.steps,
        local_epochs=0,
        batch_size=training.batch_size,
        lr=training.lr,
    )
    own = {
        "base": TASK.base,
        "phases": (phase,),
        "max_length": training.max_length,
        "lora": TASK.lora,
        "update_codec": TASK.update_codec,
    }
    return run_plan(**own | fields)


def evaluation(**fields: Any) -> EvalTask:
    shared = ("attempt", "run", "client_id", "phase", "objective", "base", "adapter", "lora")
    own: dict[str, Any] = {name: getattr(TASK, name) for name in shared}
    own |= {
        "task_id": "e1",
        "version": 0,
        "max_length": TASK.training.max_length,
        "layout": TASK.layout,
        "max_rows": 200,
        "issued_at": 0.0,
        "deadline_s": 60.0,
    }
    return EvalTask(**own | fields)


def test_tasks_of_the_plan_pass() -> None:
    check_planned(plan(), TASK)
    check_planned(plan(), task(layout="cd" * 32, lr=TASK.training.lr / 2))
    check_planned(plan(), evaluation())


def test_steps_by_speed_pass_within_the_limits_of_the_plan() -> None:
    phase = plan().phases[0].model_copy(update={"adaptive_steps": (2, 20)})
    adaptive = plan(phases=(phase,))
    check_planned(adaptive, task(layout="cd" * 32, steps=20))
    with pytest.raises(ConfigError, match="steps is 21, and in the plan 2 to 20"):
        check_planned(adaptive, task(layout="cd" * 32, steps=21))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"base": {"name": "tiny", "kind": "local", "digest": "00" * 32}}, "base model is 0000"),
        ({"objective": "dpo"}, "objective is dpo, and in the plan sft"),
        ({"phase": 1}, "objective is sft, and in the plan no such phase"),
        ({"update_codec": "int8"}, "codec is int8, and in the plan fp32"),
        ({"lora": None}, "lora is None"),
        ({"max_length": 4096}, "max_length is 4096, and in the plan 128"),
        ({"steps": 500}, "steps is 500, and in the plan 2"),
        ({"lr": 1.0}, r"learning rate is 1\.0, and in the plan at most 0\.001"),
        ({"layout": "00" * 32}, "layout is 0000"),
        ({"clip_norm": 2.0}, r"clip_norm is 2\.0, and in the plan None"),
    ],
)
def test_a_task_that_is_not_of_the_plan_is_refused(changed: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=f"task t1 is not of the plan .*{what}"):
        check_planned(plan(), task(**{"layout": "cd" * 32} | changed))


@pytest.mark.parametrize(
    ("of_plan", "of_task", "what"),
    [
        ({"evaluation": None}, {}, "evaluation is asked for, and in the plan not"),
        ({"evaluation": PlannedEvaluation(max_rows=9)}, {}, "number of rows is 200, .* 9"),
        ({}, {"candidate": TASK.adapter}, "scores of other sites' updates is federated, .* train"),
    ],
)
def test_an_evaluation_that_is_not_of_the_plan_is_refused(
    of_plan: dict[str, Any], of_task: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        check_planned(plan(**of_plan), evaluation(**of_task))


def test_other_sites_updates_are_scored_where_the_plan_says_so() -> None:
    check_planned(
        plan(contribution_source="federated", evaluation=None),
        evaluation(candidate=TASK.adapter),
    )
