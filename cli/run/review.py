"""Part of `fccl worker` that shows a run's plan, and waits for an approval where one is needed."""

from __future__ import annotations

import io
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event as Flag
from typing import TextIO

from cli.console import Output
from cli.run.job import WorkerJob
from common.errors import JoinError, StoreAccessError
from common.protocol.invitation import format_time
from common.protocol.run_plan import RunPlan
from common.store.store import Store
from worker.data.expected_rows import ExpectedRows
from worker.data.import_rows import check_directory
from worker.events import WorkerEventKind
from worker.review.approvals import Approvals
from worker.review.plan_text import plan_lines
from worker.site import identity
from worker.site.run_discovery import end_reason

POLL_S = 1.0
_QUESTION = "train under this plan? type yes or no: "


@dataclass(frozen=True)
class PlanReview:
    """Review of the plans of one worker process.

    Attributes:
        asked: The process was started with `--review`.
        required: No task is taken under a plan that is not approved.
        stdin: Where answers come from.
    """

    job: WorkerJob
    output: Output
    stop: Flag
    asked: bool
    required: bool
    stdin: TextIO

    def pass_plan(self, plan: RunPlan | None, run_over: Callable[[], bool]) -> bool:
        """Show a plan, and return True once tasks may be taken under it.

        The result is False if the worker was stopped, or the run ended, before that.

        Raises:
            DataError: The rows of this site are not what the run learns from.
            JoinError: The plan is not approved, or there is none to approve.
            RunError: The file of approvals is damaged, or cannot be written.
        """
        if plan is None:
            if not (self.required or self.asked):
                return True
            raise JoinError(
                "the coordinator publishes no plan that could be reviewed",
                "it has to run this release of fccl; without a review: review = false",
            )
        self._check_rows(plan)
        approvals = Approvals(self.job.settings_dir)
        self._show(plan, approvals)
        if self._is_approved(plan, approvals) or not (self.required or self.asked):
            return True
        if self.asked or self.stdin.isatty():
            return self._ask(plan, approvals)
        if not self.job.forever:
            raise JoinError(self._not_approved(plan), self._how())
        return self._wait(plan, approvals, run_over)

    def _check_rows(self, plan: RunPlan) -> None:
        """Check the rows against the plan, if the token did not tell the same; remember it."""
        directory = self.job.identity_dir
        own = None if directory is None else identity.load(directory)
        if own is None or directory is None:
            return
        if (own.kinds, own.labels) == (plan.kinds, plan.labels):
            return
        expected = ExpectedRows(plan.kinds, plan.labels)
        check_directory(self.job.data, own.site, expected, self.output.print)
        told = replace(own, kinds=plan.kinds, labels=plan.labels)
        identity.save(directory / identity.FILE, told)

    def _show(self, plan: RunPlan, approvals: Approvals) -> None:
        known = approvals.find(plan.digest)
        if known is None or self.asked:
            for line in plan_lines(plan):
                self.output.print(line)
            approvals.note_shown(plan, time.time())
        else:
            self.output.print(
                f"the plan of run {plan.name} is known here: {plan.digest[:16]}…, shown on"
                f" {format_time(known.shown_at)}"
            )

    def _is_approved(self, plan: RunPlan, approvals: Approvals) -> bool:
        known = approvals.find(plan.digest)
        if known is None or known.approved_at is None:
            return False
        self.output.print(f"this plan was approved on {format_time(known.approved_at)}")
        return True

    def _ask(self, plan: RunPlan, approvals: Approvals) -> bool:
        answer = self._read_answer()
        if answer is None:
            return False
        if answer.strip().lower() not in ("y", "yes"):
            raise JoinError(self._not_approved(plan), "nothing was trained or sent")
        approvals.approve(plan, time.time())
        self.output.print(f"approved: {approvals.path}")
        return True

    def _read_answer(self) -> str | None:
        """Return the line that somebody types, empty at the end of input; None after `stop`."""
        print(_QUESTION, end="", flush=True, file=sys.stderr)
        while not self.stop.is_set():
            try:
                ready, _, _ = select.select([self.stdin], [], [], POLL_S)
            except (OSError, ValueError, io.UnsupportedOperation):  # not a file of the system
                ready = [self.stdin]
            if ready:
                return self.stdin.readline()
        return None

    def _wait(self, plan: RunPlan, approvals: Approvals, run_over: Callable[[], bool]) -> bool:
        text = f"{self._not_approved(plan)}; {self._how()}"
        self.output.event(WorkerEventKind.WAITING, text)
        while not self.stop.wait(POLL_S):
            if run_over():
                return False
            known = approvals.find(plan.digest)
            if known is not None and known.approved_at is not None:
                self.output.print(f"this plan was approved on {format_time(known.approved_at)}")
                return True
        return False

    def _not_approved(self, plan: RunPlan) -> str:
        return f"the plan of run {plan.name} ({plan.digest[:16]}…) is not approved at this site"

    def _how(self) -> str:
        site = self.job.invited_site
        option = f" --site {site}" if site else ""
        return f"approve it on this machine with `fccl worker{option} --review`"


def may_train(
    job: WorkerJob, run: str, plan: RunPlan | None, store: Store, output: Output, stop: Flag
) -> bool:
    """Show the plan of a run, and return whether the worker may take its tasks.

    Workers of the coordinator's own site show it only if a review is required. Raises as
    `PlanReview.pass_plan` does.
    """
    required = job.review or job.site_settings.review
    if job.invited_site is None and not required:
        return True
    review = PlanReview(job, output, stop, job.review, required, sys.stdin)
    return review.pass_plan(plan, lambda: bool(end_reason(store, job.config.run.name, run)))


def read_plan(store: Store, run: str) -> RunPlan | None:
    """Return the plan of a run; None if its coordinator publishes none.

    Raises:
        StoreError: The store is out of reach.
    """
    try:
        return store.get_plan(run)
    except StoreAccessError:  # an earlier release does not permit sites to read the key
        return None
