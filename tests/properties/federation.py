"""A federation as a hypothesis state machine: everything that can happen, in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from common.evaluation.sums import EvaluationSums
from common.protocol.commands import ACTIONS_WITH_TARGET, Command, CommandName
from common.protocol.fields import RowKind
from common.protocol.kinds import RejectionKind
from common.protocol.updates import ContributionStats
from coordinator.core.events import (
    CommandReceived,
    CoordinatorEvent,
    EnrolmentRequested,
    HeartbeatsRead,
    Rejection,
    ScoresArrived,
    SiteRevoked,
    StopRequested,
    TaskRefused,
    Tick,
    UpdateScore,
    WorkerSignal,
)
from coordinator.core.privacy import is_exhausted
from coordinator.core.state import OpenEvaluation, OpenTask, Plan
from tests.properties import plans
from tests.properties.core_run import CoreRun
from tests.support.virtual_federation import make_result, make_stats, make_update

T = TypeVar("T")
index = st.sampled_from([0, 1, 2, 0, 3, 9, 30])
COMMANDS: tuple[CommandName, ...] = (
    "pause", "resume", "drain", "stop", "kick", "pardon", "reissue", "min-clients", "evaluate",
)  # fmt: skip
TARGETS = ("c0", "c1", "near", "far", "t000001", "0", "1", "2", "", "nobody")
FLAWS: tuple[dict[str, object], ...] = (
    {"site": "elsewhere"},
    {"client_id": "nobody"},
    {"task_id": "t000999"},
    {"attempt": 99},
    {"phase": 9},
    {"base_version": 99},
    {"problem": Rejection(RejectionKind.NOT_FINITE, "not finite")},
)
RESULT_FLAWS: tuple[dict[str, object], ...] = (
    {"site": "elsewhere"},
    {"client_id": "nobody"},
    {"task_id": "e000999"},
    {"attempt": 99},
    {"version": 99},
    {"sums": EvaluationSums(rows=900, loss=1.0, tokens=900)},
    {"sums": EvaluationSums(rows=0, loss=0.0)},
)


class FederationMachine(RuleBasedStateMachine):
    """Rules that feed events to a `CoreRun`, which checks every step.

    Messages are never used up: each may arrive again at any time, in any order, or not at all.
    """

    run: CoreRun
    commands = 0

    @initialize(plan=plans.plans())
    def begin(self, plan: Plan) -> None:
        self.run = CoreRun(plan)
        if not plan.clients:
            self._enrol("near", {"sft": 100, "va": 40, "kto": 40}, shares=True)
        self._pulse(dict.fromkeys(plans.SITES, 2))

    def teardown(self) -> None:
        if hasattr(self, "run"):
            try:
                self._settle()
            finally:
                self.run.close()

    # the sites

    @rule(workers=st.fixed_dictionaries({s: st.integers(0, 2) for s in plans.SITES}), busy=index)
    def heartbeats_are_read(self, workers: dict[str, int], busy: int) -> None:
        self._pulse(workers, busy)

    @rule(data=st.sampled_from([("near", True), ("far", False)]))
    def a_site_rests_and_another_wishes(self, data: tuple[str, bool]) -> None:
        site, resting = data
        wishes = tuple(self.run.ledger.members())[:2]
        signals = (WorkerSignal(site, False, None, wishes, resting), WorkerSignal("near", True, ""))
        self._feed(HeartbeatsRead(signals))

    @rule(client=st.sampled_from(plans.INVITED), rows=plans.rows, shares=st.booleans())
    def a_client_enrols(self, client: str, rows: dict[RowKind, int], shares: bool) -> None:
        self._enrol(client, rows, shares=shares)

    @precondition(lambda self: self.run.ledger.joined)
    @rule(which=index)
    def a_site_is_revoked(self, which: int) -> None:
        joined = sorted(self.run.ledger.joined)
        self._feed(SiteRevoked(_site(_pick(joined, which))))

    @rule(answers=st.integers(0, 5), seconds=st.sampled_from([1.0, 10.0, 45.0]))
    def sites_work_for_a_while(self, answers: int, seconds: float) -> None:
        self.run.now += seconds
        self._pulse(dict.fromkeys(plans.SITES, 2), answers)
        for task in tuple(self.run.state.tasks.values())[:answers]:
            self._feed(make_update(task, self._site_of(task)))
        for asked in tuple(self.run.state.evaluations.values())[:answers]:
            self._feed(make_result(asked, site=self._site_of(asked)))

    # answers

    @precondition(lambda self: self._tasks())
    @rule(which=index, stats=plans.statistics, norm=st.sampled_from([1.0, 0.0, 3.0, 1e9]))
    def an_update_arrives(self, which: int, stats: ContributionStats, norm: float) -> None:
        task = _pick(self._tasks(), which)
        self._feed(make_update(task, self._site_of(task), stats=stats, norm=norm))

    @precondition(lambda self: self._tasks())
    @rule(which=index)
    def a_good_update_arrives(self, which: int) -> None:
        task = _pick(self._tasks(), which)
        self._feed(make_update(task, self._site_of(task)))

    @precondition(lambda self: self._tasks())
    @rule(which=index, flaw=st.sampled_from(FLAWS))
    def a_hostile_update_arrives(self, which: int, flaw: dict[str, object]) -> None:
        task = _pick(self._tasks(), which)
        self._feed(make_update(task, **{"site": self._site_of(task), **flaw}))

    @precondition(lambda self: self.run.published)
    @rule(which=index, declines=st.booleans(), site=st.sampled_from(["", "elsewhere"]))
    def a_refusal_arrives(self, which: int, declines: bool, site: str) -> None:
        task = _pick([*self._tasks(), *self._evaluations()[-2:]], which)
        self._feed(self._refusal(task, site or self._site_of(task), declines=declines))

    @precondition(lambda self: self._evaluations())
    @rule(which=index, loss=st.sampled_from([2.0, 1e4, 1e5]), candidate=st.sampled_from([1.5, 3.0]))
    def an_evaluation_is_answered(self, which: int, loss: float, candidate: float) -> None:
        asked = _pick(self._evaluations(), which)
        self._feed(make_result(asked, loss, candidate, site=self._site_of(asked)))

    @precondition(lambda self: self._evaluations())
    @rule(which=index, flaw=st.sampled_from(RESULT_FLAWS))
    def a_hostile_result_arrives(self, which: int, flaw: dict[str, object]) -> None:
        asked = _pick(self._evaluations(), which)
        self._feed(make_result(asked, **{"site": self._site_of(asked), **flaw}))  # type: ignore[arg-type]

    @precondition(lambda self: self.run.wanted)
    @rule(
        which=index,
        score=st.sampled_from([0.5, -1.0, 0.0, 1e308, 5e-324, math.nan, math.inf]),
        other=st.sampled_from(["", "t000001", "nothing"]),
    )
    def a_score_arrives(self, which: int, score: float, other: str) -> None:
        task = other or _pick(self.run.wanted, which).task_id
        self._feed(ScoresArrived((UpdateScore(task, score), UpdateScore(task, 0.1))))

    # the operator, the machine and time

    @rule(action=st.sampled_from(COMMANDS), about=st.sampled_from(TARGETS))
    def an_operator_commands(self, action: CommandName, about: str) -> None:
        self._command(action, about)

    @rule(seconds=st.sampled_from(plans.SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.run.now += seconds
        self.run.clock_is_steady &= seconds >= 0
        self._feed(Tick())

    @rule(what=st.sampled_from(["nothing", "store", "stop", "restart"]))
    def something_fails_or_stops(self, what: str) -> None:
        match what:
            case "store":
                self._feed(HeartbeatsRead((), store_up=False))
            case "stop":
                self._feed(StopRequested())
            case "restart":
                self.run.restart()

    @rule(at=st.integers(0, 8))
    def the_coordinator_is_killed_in_the_next_step(self, at: int) -> None:
        self.run.kill_at = at

    # what the rules share

    def _feed(self, event: CoordinatorEvent) -> None:
        """Feed an event; a run that was stopped is resumed first."""
        if self.run.finished is not None and not self.run.finished.complete:
            self.run.restart()
        if self.run.finished is None:
            self.run.feed(event)

    def _pulse(self, workers: dict[str, int], busy: int = 0) -> None:
        """Let workers tell that they live; the first of each site trains an open task, or not."""
        signals: list[WorkerSignal] = []
        for site, count in workers.items():
            tasks = [each.task_id for each in self.run.published if self._site_of(each) == site]
            named = _pick(tasks, busy) if tasks and busy % 3 else None
            signals += [WorkerSignal(site, named is not None, named)] * min(1, count)
            signals += [WorkerSignal(site, False, None)] * (count - 1)
        self._feed(HeartbeatsRead(tuple(signals)))

    def _enrol(self, client: str, rows: dict[RowKind, int], *, shares: bool) -> None:
        site = client.partition(".")[0]
        self._feed(EnrolmentRequested(client, site, rows, 2, 200, 0, shares))

    def _command(self, action: CommandName, target: str = "") -> None:
        self.commands += 1
        target = target if action in ACTIONS_WITH_TARGET else ""
        command = Command(command_id=f"k{self.commands}", action=action, target=target, by="ann")
        self._feed(CommandReceived(command))
        self._feed(CommandReceived(command))  # read again: it is carried out once

    def _tasks(self) -> list[OpenTask]:
        """Return all published attempts, those of open tasks last."""
        tasks = [each for each in self.run.published if isinstance(each, OpenTask)]
        return sorted(tasks, key=lambda each: each.task_id in self.run.state.tasks)

    def _evaluations(self) -> list[OpenEvaluation]:
        asked = [each for each in self.run.published if isinstance(each, OpenEvaluation)]
        return sorted(asked, key=lambda each: each.task_id in self.run.state.evaluations)

    def _site_of(self, task: OpenTask | OpenEvaluation) -> str:
        name = task.client_id
        return self.run.plan.clients[name].site if name in self.run.plan.clients else _site(name)

    def _refusal(
        self, task: OpenTask | OpenEvaluation, site: str, *, declines: bool = False
    ) -> TaskRefused:
        return TaskRefused(task.task_id, task.attempt, task.client_id, site, "no", declines)

    # the end

    def _settle(self) -> None:
        """Let all sites work from now on, and check that the run ends.

        One of sites only does not, if its clients have no privacy left to spend.
        """
        run = self.run
        if run.finished is None or not run.finished.complete:
            run.restart()
        self._make_able()
        draining = run.state.draining
        for turn in range(300):
            if run.finished is not None and (run.finished.complete or draining):
                break
            if is_exhausted(run.plan, run.state):
                assert run.finished or not run.plan.clients, "it waits for nobody"
                return
            run.now += 20.0
            self._pulse(dict.fromkeys(plans.SITES, 3))
            self._answer_all(evaluate=bool(turn % 2))
        assert run.finished is not None, "the run does not end"
        assert run.finished.complete or draining
        if run.finished.complete:
            assert not run.state.tasks and not run.state.buffer and not run.state.rounds
            assert run.ledger.version == run.plan.total_versions
        self._check_that_it_has_ended()

    def _make_able(self) -> None:
        self._command("resume")
        self._command("min-clients", "1")
        kinds: dict[RowKind, int] = {"sft": 100, "va": 40, "kto": 40}
        for client in ("near", "far"):
            self._enrol(client, kinds, shares=True)
        for client in self.run.ledger.members():
            self._command("pardon", client)

    def _answer_all(self, *, evaluate: bool) -> None:
        """Answer what is open, as sites do; some evaluations are never answered."""
        run = self.run
        for task in tuple(run.state.tasks.values()):
            site = self._site_of(task)
            rows = run.plan.rows(run.ledger.members()[task.client_id], task.phase)
            answer = make_update(task, site, stats=make_stats()) if rows else None
            self._feed(answer or self._refusal(task, site))
        if evaluate:
            for asked in tuple(run.state.evaluations.values())[:2]:
                self._feed(make_result(asked, site=self._site_of(asked)))
        scores = tuple(UpdateScore(update.task_id, 0.5) for update in run.wanted)
        if scores:
            self._feed(ScoresArrived(scores))

    def _check_that_it_has_ended(self) -> None:
        """Feed a run that has ended; the ledger checks that nothing is issued or committed."""
        version = self.run.state.version
        self.run.feed(Tick())
        self.run.feed(SiteRevoked("far"))
        assert self.run.state.version == version


def _site(client: str) -> str:
    return client.partition(".")[0]


def _pick(items: Sequence[T], which: int) -> T:
    """Return the newest item for 0, and older ones for more."""
    return items[-1 - which % len(items)]
