"""Participation under differential privacy: once per version, and never above the cap."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from common.config.config import AggregationConfig, PrivacyConfig
from coordinator.core import machine
from coordinator.core.events import (
    EnrolmentRequested,
    FinishRun,
    HeartbeatsRead,
    IssueTask,
    WorkerSignal,
)
from coordinator.core.privacy import current_spending, is_exhausted, spent_clients
from coordinator.core.state import CoordinatorState, Plan
from tests.support.virtual_federation import Federation, Worker, make_plan, make_update

SPENT = "the privacy of every client is spent: each is in 2 versions (privacy.max_versions)"
NEAR = WorkerSignal("near", False, None)


def private_plan(clients: int = 4, cap: int | None = 2, **settings: object) -> Plan:
    uniform = AggregationConfig(contribution_mode="uniform")
    plan = make_plan(clients, aggregation=uniform, **settings)  # type: ignore[arg-type]
    return replace(plan, privacy=PrivacyConfig(clip_norm=1.0, max_versions=cap))


def participation(fed: Federation) -> Counter[str]:
    return Counter(part.update.client_id for commit in fed.log.commits for part in commit.parts)


def workers(*seconds: float) -> list[Worker]:
    return [Worker(f"w{i}", each) for i, each in enumerate(seconds)]


def test_a_version_has_at_most_one_update_of_a_client_even_of_a_fast_one() -> None:
    plan = private_plan(cap=None, versions=6, concurrency=4, buffer_size=3, flush_s=1e6)
    fed = Federation(plan, workers(1, 1, 50, 50)).run()
    assert fed.finished is not None and fed.finished.complete
    for commit in fed.log.commits:
        assert len({part.update.client_id for part in commit.parts}) == len(commit.parts) == 3


def test_a_buffer_that_no_client_can_fill_is_committed_after_a_while() -> None:
    plan = private_plan(2, cap=None, versions=2, concurrency=4, buffer_size=3, flush_s=30)
    fed = Federation(plan, workers(1, 1, 1)).run()
    assert [len(commit.parts) for commit in fed.log.commits] == [2, 2]
    assert {part.weight for commit in fed.log.commits for part in commit.parts} == {1 / 3}


def test_a_client_at_its_cap_gets_no_more_tasks_and_the_others_go_on() -> None:
    plan = private_plan(versions=4, concurrency=2, buffer_size=2)
    fed = Federation(plan, workers(1, 5)).run()
    assert fed.finished == FinishRun(True, "the plan is complete")
    assert set(participation(fed).values()) == {2}
    assert len(fed.log.issued) == 8


def test_a_run_whose_clients_have_all_reached_the_cap_stops_with_the_reason() -> None:
    plan = private_plan(3, versions=9, concurrency=3, buffer_size=2)
    fed = Federation(plan, workers(1, 2, 3)).run()
    assert fed.finished == FinishRun(False, SPENT)
    assert participation(fed) == {"c0": 2, "c1": 2, "c2": 2}
    assert fed.state.buffer == ()


def test_an_update_that_was_rejected_spends_nothing() -> None:
    plan = private_plan(1, cap=1, versions=9, concurrency=1, buffer_size=2, flush_s=5)
    fed = Federation(plan, [Worker("w0", 1, refuses=True)]).run(until=3)
    fed.workers[0].refuses = False
    assert fed.run().finished is not None
    assert participation(fed) == {"c0": 1}


def test_the_last_version_of_the_plan_is_no_end_for_lack_of_privacy() -> None:
    plan = private_plan(2, cap=2, versions=2, concurrency=2, buffer_size=2)
    assert Federation(plan, workers(1, 1)).run().finished == FinishRun(True, "the plan is complete")


def test_a_run_of_sites_only_ends_with_its_last_possible_version_but_may_be_resumed() -> None:
    plan = private_plan(0, cap=1, versions=9, concurrency=1, buffer_size=2, flush_s=5)
    plan = replace(plan, min_clients=1)
    done = machine.step(plan, CoordinatorState(), _enrol("near"), 0.0)
    done = machine.step(plan, done.state, HeartbeatsRead((NEAR,)), 1.0)
    (issue,) = [action for action in done.actions if isinstance(action, IssueTask)]
    done = machine.step(plan, done.state, make_update(issue.task, "near"), 2.0)
    assert not done.state.stopping  # others may still join before the buffer is committed
    done = machine.step(plan, done.state, HeartbeatsRead((NEAR,)), 8.0)
    reason = "the privacy of every client is spent: each is in 1 version (privacy.max_versions)"
    assert done.actions[-1] == FinishRun(False, reason)
    resumed = replace(done.state, stopping=False)
    assert is_exhausted(plan, resumed) and spent_clients(plan, resumed) == ["near"]
    done = machine.step(plan, resumed, HeartbeatsRead((NEAR,)), 20.0)
    assert not any(isinstance(action, FinishRun | IssueTask) for action in done.actions)
    done = machine.step(plan, done.state, _enrol("far"), 21.0)
    done = machine.step(plan, done.state, HeartbeatsRead((WorkerSignal("far", False, None),)), 22.0)
    assert [a.task.client_id for a in done.actions if isinstance(a, IssueTask)] == ["far"]


def test_the_most_exposed_client_counts() -> None:
    plan = private_plan(cap=5, versions=6, concurrency=2, buffer_size=2)
    fed = Federation(plan, workers(1, 9)).run()
    spent = current_spending(plan, fed.state)
    assert spent is not None
    assert spent.versions == max(participation(fed).values()) == spent.versions_at_end
    assert current_spending(make_plan(), fed.state) is None


def _enrol(site: str) -> EnrolmentRequested:
    return EnrolmentRequested(site, site, {"sft": 60}, 2, 200)
