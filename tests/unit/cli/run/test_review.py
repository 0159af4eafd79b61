from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.protocol import Site
from cli.console import Output
from cli.run.job import WorkerJob
from cli.run.review import PlanReview
from common.config.config import FederationConfig
from common.errors import DataError, JoinError
from common.protocol.run_plan import RunPlan
from tests.support.run_plans import run_plan
from worker.review.approvals import Approvals
from worker.site import identity
from worker.site.identity import Identity


class Stop(threading.Event):
    """Stop flag whose waits call back instead of waiting."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        super().__init__()
        self._on_wait = on_wait

    def wait(self, timeout: float | None = None) -> bool:
        self._on_wait()
        return self.is_set()


@dataclass
class ReviewedSite:
    """Site hospital-a with rows, whose plans are reviewed."""

    place: Path
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        rows = [{"instruction": f"Count to {i}.", "output": f"{i}"} for i in range(9)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.place / "hospital-a_sft.jsonl").write_text(text)
        identity.save(
            self.place / identity.FILE,
            Identity(
                "hospital-a", "triage", "amqp://b/", "redis://s/0", None, "x", "t", "{}", True
            ),
        )

    def review(
        self,
        plan: RunPlan | None,
        answers: str = "",
        *,
        asked: bool = False,
        required: bool = False,
        forever: bool = False,
        over: Callable[[], bool] = lambda: False,
    ) -> bool:
        job = WorkerJob(
            FederationConfig(),
            Site("hospital-a"),
            self.place,
            self.place / "work",
            forever,
            settings_dir=self.place,
            identity_dir=self.place,
        )
        output = Output(plain=True)
        stdin = io.StringIO(answers)
        return PlanReview(job, output, self.stop, asked, asked or required, stdin).pass_plan(
            plan, over
        )

    @property
    def approved(self) -> bool:
        known = Approvals(self.place).find(run_plan().digest)
        return known is not None and known.approved_at is not None


@pytest.fixture
def site(tmp_path: Path) -> ReviewedSite:
    return ReviewedSite(tmp_path)


def test_a_plan_is_shown_once_and_later_starts_print_one_line(
    site: ReviewedSite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert site.review(run_plan())
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("the plan of run triage, coordinated by Jane Doe") and len(first) > 9
    assert site.review(run_plan(run="triage-2"))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("the plan of run triage is known here")
    assert site.review(run_plan(update_codec="fp32"))
    assert len(capsys.readouterr().out.splitlines()) > 9


def test_without_a_review_a_run_that_publishes_no_plan_is_served(site: ReviewedSite) -> None:
    assert site.review(None)


@pytest.mark.parametrize("answer", ["yes\n", "Y\n"])
def test_yes_approves_the_plan_for_services(site: ReviewedSite, answer: str) -> None:
    assert site.review(run_plan(), answer, asked=True)
    assert site.review(run_plan(run="triage-2"), required=True)


@pytest.mark.parametrize("answer", ["no\n", "", "\n", "yes please\n"])
def test_any_other_answer_ends_with_code_9(site: ReviewedSite, answer: str) -> None:
    with pytest.raises(JoinError, match=r"is not approved at this site; nothing was trained") as no:
        site.review(run_plan(), answer, asked=True)
    assert no.value.exit_code == 9
    assert not site.approved


def test_a_service_ends_with_the_command_that_approves(site: ReviewedSite) -> None:
    with pytest.raises(JoinError, match=r"`fccl worker --site hospital-a --review`"):
        site.review(run_plan(), required=True)


def test_a_changed_plan_asks_again(site: ReviewedSite) -> None:
    assert site.review(run_plan(), "yes\n", asked=True)
    with pytest.raises(JoinError, match="is not approved"):
        site.review(run_plan(update_codec="fp32"), required=True)


def test_a_service_that_serves_forever_waits_for_the_approval(site: ReviewedSite) -> None:
    site.stop = Stop(lambda: Approvals(site.place).approve(run_plan(), 1.0))
    assert site.review(run_plan(), required=True, forever=True)


def test_the_wait_for_an_approval_ends_with_the_run_or_the_worker(site: ReviewedSite) -> None:
    site.stop = Stop(lambda: None)
    assert not site.review(run_plan(), required=True, forever=True, over=lambda: True)
    site.stop = stop = Stop(lambda: stop.set())  # noqa: PLW0108 - the name is bound by this line
    assert not site.review(run_plan(), required=True, forever=True)


def test_a_review_needs_a_plan(site: ReviewedSite) -> None:
    with pytest.raises(JoinError, match="publishes no plan that could be reviewed"):
        site.review(None, required=True)


def test_rows_are_checked_against_the_plan_and_its_kinds_are_kept(site: ReviewedSite) -> None:
    assert site.review(run_plan())
    own = identity.load(site.place)
    assert own is not None and own.kinds == ("sft",)
    dpo = run_plan().phases[0].model_copy(update={"objective": "dpo"})
    with pytest.raises(DataError, match=r"has sft rows .*, but the run learns from va"):
        site.review(run_plan(phases=(dpo,)))
