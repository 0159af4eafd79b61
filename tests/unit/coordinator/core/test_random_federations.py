"""What holds in every federation: random plans, faults, commands, sites and flawed messages."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from coordinator.core.events import (
    Action,
    CommitVersion,
    FinishRun,
    IssueEvaluation,
    IssueTask,
)
from coordinator.core.minimum import enough_clients, minimum
from coordinator.core.state import CoordinatorState, Plan
from tests.support.random_federations import (
    Faults,
    random_interventions,
    random_plan,
    random_workers,
)
from tests.support.virtual_federation import PULSE_S, Federation


class Invariants:
    """Checks of every step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.authors: dict[str, str] = {}  # client of each update

    def __call__(
        self,
        before: CoordinatorState,
        after: CoordinatorState,
        actions: tuple[Action, ...],
        now: float,
    ) -> None:
        self.authors.update((u.task_id, u.client_id) for u in after.buffer)
        oldest = min((each.opened_at for each in after.rounds), default=now)
        assert after.paused or now - oldest < self.plan.evaluation.deadline_s + PULSE_S
        for action in actions:
            match action:
                case CommitVersion():
                    # A commit can begin another phase, with rows of another kind.
                    assert enough_clients(self.plan, replace(after, version=before.version), now)
                    contributors = {part.update.client_id for part in action.parts}
                    alone = self.plan.schedule.buffer == 1 or minimum(self.plan, before) == 1
                    assert len(contributors) > 1 or alone
                case IssueTask():
                    assert enough_clients(self.plan, after, now)
                case IssueEvaluation(evaluation=evaluation) if evaluation.candidate:
                    assert evaluation.client_id != self.authors[evaluation.candidate]
                case _:
                    pass


def run_federation(seed: int, *, interventions: bool) -> Federation:
    random = Random(seed)
    plan = random_plan(random)
    fed = Federation(plan, random_workers(random), network=Faults(seed), on_step=Invariants(plan))
    if interventions:
        random_interventions(fed, random)
    return fed.run(3_000.0 if interventions else 100_000.0)


def check_log(fed: Federation) -> None:
    log, final = fed.log, fed.plan.total_versions
    assert len(log.opened) == len(log.ended) + len(fed.state.rounds)
    if fed.finished == FinishRun(True, "the plan is complete"):
        assert len(log.opened) == len(log.ended)
        if fed.plan.evaluation.federated:
            assert final in [each.version for each in log.ended]
    scored = [score.task_id for record in log.scored for score in record.scores]
    assert len(scored) == len(set(scored))
    assert set(scored) <= {accepted.update.task_id for accepted in log.accepted}


@pytest.mark.parametrize("seed", range(4))
def test_the_invariants_hold_and_the_run_completes(seed: int) -> None:
    fed = run_federation(seed, interventions=False)
    assert fed.finished is not None and fed.finished.complete
    check_log(fed)


@pytest.mark.parametrize("seed", range(4))
def test_the_invariants_hold_with_commands_sites_and_hostile_messages(seed: int) -> None:
    check_log(run_federation(seed, interventions=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_the_invariants_hold_in_many_federations(seed: int) -> None:
    fed = run_federation(seed, interventions=False)
    assert fed.finished is not None and fed.finished.complete
    check_log(fed)
    check_log(run_federation(seed, interventions=True))
