"""Start and end of a run, shared by `fccl coordinator` and `fccl demo`.

Tasks that need a model are passed in as `ModelTasks`: the demo performs them in its own process
(`cli/run/local_tasks.py`), the coordinator in child processes (`cli/run/child_tasks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from broker.protocol import Broker, Site, Topology
from cli.checks import invited_clients
from cli.console import Output
from cli.exit_codes import FAILED, STOPPED
from common.config.config import FederationConfig
from common.config.effect import check_effect
from common.protocol.naming import LOCAL_SITE
from common.protocol.tasks import BaseRef
from common.start_lock import StartLock
from coordinator.aggregation.rules.registry import make_rule
from coordinator.core.state import Plan
from coordinator.samples_source import SamplesSource
from coordinator.scores_source import ScoreSource
from coordinator.service import RunOutcome
from coordinator.sites.registry import SiteRegistry
from coordinator.storage import run as runs
from coordinator.storage.run import Run, StartMode


class ModelTasks(Protocol):
    """Tasks around a run that need torch."""

    def prepare_run(self, config: FederationConfig) -> Path:
        """Create the run directory and return the directory of its base model."""

    def find_base_model(self, base: BaseRef) -> Path:
        """Return the directory of an existing run's base model; fetch or make it if necessary."""

    def live_samples(self, run: Run) -> SamplesSource:
        """Return the source of live samples of a run."""

    def write_cards(self, run: Run, versions: Sequence[int]) -> Sequence[str]:
        """Return the model cards of versions of a run."""

    def update_scores(self, run: Run) -> ScoreSource:
        """Return the source of scores of updates, which has none unless the run needs it."""

    def write_report(self, run: Run) -> Path:
        """Write the final report and return the path of its Markdown file."""


@contextmanager
def opened_run(
    config: FederationConfig,
    mode: str,
    tasks: ModelTasks,
    output: Output,
    on_set_aside: Callable[[str], None],
) -> Iterator[Run]:
    """Create or continue the configured run, and keep it from being replaced during the block.

    While a run is created, any other start is refused. While it is served, only one that would
    replace it is: a second coordinator takes the run over, which the journal's epoch makes safe.

    Raises:
        RunError: Another start is at work, or `mode` does not fit what it has left.
    """
    lock = StartLock(config.run.path)
    lock.acquire(shared=mode != "new" and runs.run_exists(config))
    try:
        runs.check_mode(config, cast(StartMode, mode))
        run = open_run(config, mode, tasks, output, on_set_aside)
        lock.share()
        yield run
    finally:
        lock.release()


def open_run(
    config: FederationConfig,
    mode: str,
    tasks: ModelTasks,
    output: Output,
    on_set_aside: Callable[[str], None],
) -> Run:
    """Create or continue the configured run.

    Args:
        mode: One of `coordinator.storage.run.StartMode`, checked by `cli.checks`.
        on_set_aside: Called with the id of an earlier run that was set aside, whose queues can be
            removed.
    """
    if mode == "new" or not config.run.path.exists():
        check_effect(config)  # before an earlier run is set aside
        make_rule(config)  # likewise, because it may be a plug-in that is not installed
    if mode == "new" and (old := runs.set_aside(config)) is not None:
        on_set_aside(old)
    base_path: Path | None = None
    if not config.run.path.exists():
        base_path = tasks.prepare_run(config)
    run = runs.open_run(config, lambda base: base_path or tasks.find_base_model(base))
    output.end_progress()
    print_plan(run, invited_clients(SiteRegistry(config.run.sites)), output)
    return run


def delete_queues(config: FederationConfig, broker: Broker, run_id: str) -> None:
    """Delete the queues of a run that was set aside, including those of its invited sites."""
    invited = (site.name for site in SiteRegistry(config.run.sites).all())
    broker.delete(Topology(run_id, tuple(Site(name) for name in (LOCAL_SITE, *invited))))


def print_plan(run: Run, invited: int, output: Output) -> None:
    """Print what a run will do.

    Args:
        invited: Number of clients that the invited sites may bring.
    """
    plan, base = run.plan, run.template.base
    mode = "asynchronous" if plan.schedule.reissue == "immediate" else "synchronous"
    output.print(f"run {run.name} ({run.run_id}) in {run.directory}")
    output.print(f"base model {base.name}, digest {base.digest[:12]}")
    output.print(
        f"{_describe_clients(plan, invited)}; {mode}, {plan.total_versions}"
        f" versions of {plan.schedule.buffer} updates,"
        f" at most {plan.schedule.concurrency} tasks in flight"
    )
    if run.config.samples.prompts and not run.config.has_prompts:
        output.print("versions answer no prompts: samples.prompts_file names none")


def _describe_clients(plan: Plan, invited: int) -> str:
    if plan.clients:
        rows = sum(sum(client.rows.values()) for client in plan.clients.values())
        return f"{len(plan.clients)} clients with {rows} training rows"
    text = f"all rows stay at the sites; waits for {plan.min_clients} clients"
    if invited < plan.min_clients:
        text += f" (invited so far: {invited}; `fccl invite SITE` adds one)"
    return text


def conclude(run: Run, outcome: RunOutcome, tasks: ModelTasks, output: Output) -> Path | None:
    """Print how the run ended; return the path of the report if the plan is complete."""
    output.print(
        f"{outcome.reason}: version {outcome.version} of {run.plan.total_versions}"
        f" in {run.versions.directory(outcome.version)}"
    )
    if not outcome.complete:
        output.print(f"continue with --resume; everything accepted is in {run.directory}")
        return None
    if outcome.was_complete and (path := report_path(run.directory)).exists():
        return path
    try:
        return tasks.write_report(run)
    finally:
        output.end_progress()


def report_path(directory: Path) -> Path:
    """Return the path of a run's final report, the last of its files to be written."""
    return directory / "report" / "report.md"


def exit_code(outcome: RunOutcome) -> int:
    """Return the exit code: 0 complete, 10 stopped, 11 failed."""
    if outcome.complete:
        return 0
    return FAILED if outcome.failed else STOPPED
