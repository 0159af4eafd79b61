"""Scores that clients cannot inflate: who is asked, what is recorded, and how long commits wait."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from common.config.config import AggregationConfig
from common.protocol.kinds import RejectionKind
from coordinator.core import machine
from coordinator.core.events import (
    CloseEvaluation,
    CommitVersion,
    HeartbeatsRead,
    IssueEvaluation,
    IssueTask,
    RecordScores,
    RequestScores,
    ScoresArrived,
    StopRequested,
    TaskRefused,
    Tick,
    UpdateScore,
    WorkerSignal,
)
from coordinator.core.scores import EVALUATORS, backlog_limit, choose_evaluators
from coordinator.core.state import BufferedUpdate, Client, CoordinatorState, OpenEvaluation, Plan
from coordinator.core.transition import Transition
from tests.support.virtual_federation import (
    Federation,
    Worker,
    make_plan,
    make_result,
    make_stats,
    make_update,
)

SITES = ("bay", "elm", "fir", "oak")


def scored_plan(source: str, **more: object) -> Plan:
    """Return a plan with four clients at as many sites, and a buffer of two updates."""
    clients = {site: Client(site, site, {"sft": 100}) for site in SITES}
    config = AggregationConfig.model_validate({"contribution_source": source, "floor": 0.0})
    settings: dict[str, object] = {"versions": 4, "buffer_size": 2, **more}
    return make_plan(clients, aggregation=config, **settings)  # type: ignore[arg-type]


def begin(plan: Plan) -> CoordinatorState:
    """Return the state in which each site trains."""
    signals = tuple(WorkerSignal(site, False, None) for site in SITES)
    return machine.step(plan, CoordinatorState(), HeartbeatsRead(signals), 0.0).state


def arrive(plan: Plan, state: CoordinatorState, site: str, now: float) -> Transition:
    task = next(task for task in state.tasks.values() if task.client_id == site)
    return machine.step(plan, state, make_update(task, site), now)


def asked(done: Transition) -> list[OpenEvaluation]:
    return [a.evaluation for a in done.actions if isinstance(a, IssueEvaluation)]


def find(done: Transition, kind: type) -> list[object]:
    return [a for a in done.actions if isinstance(a, kind)]


def answer(
    plan: Plan, state: CoordinatorState, each: OpenEvaluation, now: float, candidate: float = 1.5
) -> Transition:
    event = make_result(each, site=each.client_id, candidate=candidate)
    return machine.step(plan, state, event, now)


# server


def test_a_server_score_is_requested_for_each_accepted_update_and_the_commit_waits() -> None:
    plan = scored_plan("server")
    done = arrive(plan, begin(plan), "bay", 1.0)
    assert [r.updates[0].client_id for r in find(done, RequestScores)] == ["bay"]  # type: ignore[attr-defined]
    done = arrive(plan, done.state, "elm", 2.0)
    assert not find(done, CommitVersion) and done.state.full_at == 2.0
    scores = (UpdateScore("t000001", 0.2, 3.0, 0), UpdateScore("t000002", 0.1))
    done = machine.step(plan, done.state, ScoresArrived(scores), 3.0)
    assert find(done, RecordScores) == [RecordScores("server", scores)]
    (commit,) = find(done, CommitVersion)
    assert isinstance(commit, CommitVersion)
    assert [part.weight for part in commit.parts] == pytest.approx([2 / 3, 1 / 3])
    assert done.state.client("bay").last_score == 0.2
    assert (done.state.scores, done.state.scoring, done.state.full_at) == ({}, frozenset(), 0.0)


def test_a_commit_waits_for_scores_at_most_until_the_deadline() -> None:
    plan = scored_plan("server")
    state = arrive(plan, begin(plan), "bay", 1.0).state
    state = machine.step(plan, state, ScoresArrived((UpdateScore("t000001", 0.2),)), 1.5).state
    state = arrive(plan, state, "elm", 2.0).state
    assert not find(machine.step(plan, state, Tick(), 61.9), CommitVersion)
    (commit,) = find(machine.step(plan, state, Tick(), 62.0), CommitVersion)
    assert isinstance(commit, CommitVersion)
    assert [part.score for part in commit.parts] == pytest.approx([20.0, 20.0])  # the median


def test_new_tasks_pause_while_many_updates_wait_for_scores() -> None:
    plan = scored_plan("server", versions=100, concurrency=4, buffer_size=2)
    state, issued = begin(plan), 0
    for turn in range(40):  # the sites are fast, and no score comes
        for site in SITES:
            if any(task.client_id == site for task in state.tasks.values()):
                done = arrive(plan, state, site, 1.0 + turn / 100)
                state, issued = done.state, issued + len(find(done, IssueTask))
    limit = backlog_limit(plan)
    assert limit <= len(state.buffer) <= limit + plan.schedule.concurrency
    assert not state.tasks and issued < 10
    scored = tuple(UpdateScore(u.task_id, 1.0, 0.1, 0) for u in state.buffer)
    done = machine.step(plan, state, ScoresArrived(scored), 5.0)
    assert find(done, CommitVersion) and len(find(done, IssueTask)) == 4


def test_a_stop_does_not_wait_for_scores() -> None:
    plan = scored_plan("server")
    state = arrive(plan, begin(plan), "bay", 1.0).state
    done = machine.step(plan, state, StopRequested(), 2.0)
    assert len(find(done, CommitVersion)) == 1


def test_scores_that_are_unknown_repeated_or_not_finite_are_ignored() -> None:
    plan = scored_plan("server")
    state = arrive(plan, begin(plan), "bay", 1.0).state
    for flawed in (UpdateScore("t000009", 1.0), UpdateScore("t000001", nan)):
        done = machine.step(plan, state, ScoresArrived((flawed,)), 2.0)
        assert done.actions == ()
    twice = (UpdateScore("t000001", 0.5), UpdateScore("t000001", 0.9))
    done = machine.step(plan, state, ScoresArrived(twice), 2.0)
    assert find(done, RecordScores) == [RecordScores("server", twice[:1])]
    assert machine.step(plan, done.state, ScoresArrived(twice), 3.0).actions == ()


# cosine


def test_cosines_are_requested_once_for_the_whole_buffer_when_it_is_ready() -> None:
    plan = scored_plan("cosine")
    done = arrive(plan, begin(plan), "bay", 1.0)
    assert not find(done, RequestScores)
    done = arrive(plan, done.state, "elm", 2.0)
    (request,) = find(done, RequestScores)
    assert isinstance(request, RequestScores)
    assert [u.client_id for u in request.updates] == ["bay", "elm"]
    done = machine.step(plan, done.state, Tick(), 3.0)
    assert not find(done, RequestScores)
    scores = (UpdateScore("t000001", 0.8), UpdateScore("t000002", -0.3))
    (commit,) = find(machine.step(plan, done.state, ScoresArrived(scores), 4.0), CommitVersion)
    assert isinstance(commit, CommitVersion)
    assert [part.score for part in commit.parts] == pytest.approx([80.0, 4.0])


def test_a_single_update_is_flushed_without_a_cosine() -> None:
    plan = scored_plan("cosine", flush_s=10.0)
    state = arrive(plan, begin(plan), "bay", 1.0).state
    done = machine.step(plan, state, Tick(), 12.0)
    assert find(done, CommitVersion) and not find(done, RequestScores)


# federated


def test_two_other_clients_evaluate_each_update_from_its_base_version() -> None:
    plan = scored_plan("federated")
    done = arrive(plan, begin(plan), "bay", 1.0)
    assert len(asked(done)) == EVALUATORS
    assert {e.candidate for e in asked(done)} == {"t000001"}
    assert {e.version for e in asked(done)} == {0}
    assert "bay" not in {e.client_id for e in asked(done)}


def test_a_federated_score_is_the_mean_drop_and_is_recorded_with_the_last_answer() -> None:
    plan = scored_plan("federated")
    done = arrive(plan, begin(plan), "bay", 1.0)
    first, second = asked(done)
    done = answer(plan, done.state, first, 2.0, candidate=1.5)
    assert not find(done, RecordScores)
    done = answer(plan, done.state, second, 3.0, candidate=1.9)
    (record,) = find(done, RecordScores)
    assert isinstance(record, RecordScores)
    (score,) = record.scores
    assert (score.task_id, score.seconds, score.nbytes) == ("t000001", 2.0, 100)
    assert score.score == pytest.approx(0.3)
    assert done.state.scores == {"t000001": score.score} and not done.state.answers


def test_one_answer_is_enough_if_the_other_evaluator_refuses() -> None:
    plan = scored_plan("federated")
    done = arrive(plan, begin(plan), "bay", 1.0)
    first, second = asked(done)
    state = answer(plan, done.state, first, 2.0).state
    refusal = TaskRefused(second.task_id, 1, second.client_id, second.client_id, "no memory")
    done = machine.step(plan, state, refusal, 3.0)
    assert len(find(done, RecordScores)) == 1


def test_at_the_deadline_pending_evaluations_are_closed_and_one_answer_counts() -> None:
    plan = scored_plan("federated", lease_s=600.0)
    done = arrive(plan, begin(plan), "bay", 1.0)
    first, _ = asked(done)
    state = answer(plan, done.state, first, 2.0).state
    state = arrive(plan, state, "elm", 3.0).state
    assert not find(machine.step(plan, state, Tick(), 62.0), CommitVersion)
    done = machine.step(plan, state, Tick(), 63.0)
    closed = [a for a in done.actions if isinstance(a, CloseEvaluation)]
    assert {c.rejection.kind for c in closed} == {RejectionKind.EXPIRED} and len(closed) == 3
    assert len(find(done, RecordScores)) == len(find(done, CommitVersion)) == 1
    assert not done.state.evaluations


@pytest.mark.parametrize("silent", [False, True])
def test_updates_are_shown_only_between_live_clients_that_share(silent: bool) -> None:
    plan = scored_plan("federated")
    shares = {name: name in ("bay", "elm") for name in SITES}
    clients = {name: replace(c, shares_updates=shares[name]) for name, c in plan.clients.items()}
    plan = replace(plan, clients=clients)
    state = begin(plan)
    own, other = (make_buffered(name) for name in ("bay", "fir"))
    now = 1000.0 if silent else 1.0
    assert choose_evaluators(plan, state, own, now) == ([] if silent else ["elm"])
    assert choose_evaluators(plan, state, other, now) == []


def make_buffered(client: str, task: str = "t1") -> BufferedUpdate:
    return BufferedUpdate(task, 1, client, "w", 0, make_stats(), 1.0, 1, "u")


def test_clients_of_the_same_invited_site_do_not_score_each_other() -> None:
    clients = {name: Client(name, "elm", {"sft": 9}) for name in ("elm", "elm.a", "elm.b")}
    clients["fir"] = Client("fir", "fir", {"sft": 9})
    plan = replace(scored_plan("federated"), clients=clients)
    assert choose_evaluators(plan, begin(plan), make_buffered("elm"), 1.0) == ["fir"]


def test_the_evaluators_differ_from_update_to_update() -> None:
    plan = scored_plan("federated")
    state = begin(plan)
    drawn = {
        tuple(choose_evaluators(plan, state, make_buffered("bay", f"t{i}"), 1.0)) for i in range(20)
    }
    assert len(drawn) > 2


@pytest.mark.parametrize("source", ["server", "federated", "cosine"])
def test_a_run_completes_with_scores(source: str) -> None:
    plan = scored_plan(source)
    fed = Federation(plan, [Worker(site, site=site) for site in SITES]).run()
    assert fed.finished is not None and fed.finished.complete
    scored = {s.task_id for record in fed.log.scored for s in record.scores}
    assert scored >= set(fed.log.applied())


def test_a_run_completes_without_any_score() -> None:
    plan = scored_plan("server")
    workers = [Worker(site, site=site) for site in SITES]
    fed = Federation(plan, workers, scorer=lambda request: ()).run()
    assert fed.finished is not None and fed.finished.complete
    assert {p.score for c in fed.log.commits for p in c.parts} == {100.0}  # n · 1
