"""Opening a run and serving it: what `fccl coordinator` and `fccl demo` have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from broker.protocol import Broker, Site, Topology
from cli.console import Output
from cli.exit_codes import FAILED, STOPPED
from common.config.config import FederationConfig
from common.paths import cache_dir
from common.protocol.naming import LOCAL_SITE
from coordinator.service import RunOutcome
from coordinator.sites.registry import SiteRegistry
from coordinator.storage import run as runs
from coordinator.storage.run import Run
from evaluation.report import files, report
from learning.training.device import Compute
from preparation import run as preparation


def open_run(
    config: FederationConfig, mode: str, output: Output, forget: Callable[[str], None]
) -> Run:
    """Make or continue the run that the configuration names.

    Args:
        config: Of the run.
        mode: One of `coordinator.storage.run.StartMode`; `cli.checks` has found it possible.
        output: Told what is done.
        forget: Called with the id of a run that was set aside: its queues can go.
    """
    cache = cache_dir()
    if mode == "new" and (old := runs.set_aside(config)) is not None:
        forget(old)
    if not config.run.path.exists():
        config = preparation.apply_offline_fallback(config, output.print)
        prepare = preparation.origin(config, cache, output.progress, output.print)
        runs.create_run(config, prepare, time.time())
    run = runs.open_run(config, preparation.find_base_model(config, cache, output.progress))
    output.end_progress()
    describe(run, output)
    return run


def forget_queues(config: FederationConfig, broker: Broker, run_id: str) -> None:
    """Remove the queues of a run that was set aside, those of its invited sites included."""
    invited = (site.name for site in SiteRegistry(config.run.sites).all())
    broker.delete(Topology(run_id, tuple(Site(name) for name in (LOCAL_SITE, *invited))))


def describe(run: Run, output: Output) -> None:
    """Say what is about to happen."""
    plan, base = run.plan, run.template.base
    rows = sum(sum(client.rows.values()) for client in plan.clients.values())
    mode = "asynchronous" if plan.schedule.reissue == "immediate" else "synchronous"
    output.print(f"run {run.name} ({run.run_id}) in {run.directory}")
    output.print(f"base model {base.name}, digest {base.digest[:12]}")
    output.print(
        f"{len(plan.clients)} clients with {rows} training rows; {mode}, {plan.total_versions}"
        f" versions of {plan.schedule.buffer} updates,"
        f" at most {plan.schedule.concurrency} tasks in flight"
    )


def conclude(
    run: Run, outcome: RunOutcome, compute: Callable[[], Compute], output: Output
) -> Path | None:
    """Say how it ended, and write the report of a run that has learned something."""
    output.print(
        f"{outcome.reason}: version {outcome.version} of {run.plan.total_versions}"
        f" in {run.versions.directory(outcome.version)}"
    )
    if not outcome.complete:
        output.print(f"continue with --resume; everything accepted is in {run.directory}")
        return None
    if outcome.was_complete and (path := run.directory / "report" / "report.md").exists():
        return path  # written last of its files, so that all of them are there
    return files.write(report.build(run, compute()), run.directory / "report")


def exit_code(outcome: RunOutcome) -> int:
    """0 complete, 10 stopped, 11 failed."""
    if outcome.complete:
        return 0
    return FAILED if outcome.failed else STOPPED
