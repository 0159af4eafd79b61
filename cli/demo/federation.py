"""Run of `fccl demo`: an embedded federation that ends with a report.

Imports torch; `cli/demo/command.py` imports this module once the arguments are checked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from cli.console import Output
from cli.demo.child import Lifeline
from cli.demo.embedded import EmbeddedFederation, FederationCallbacks
from cli.run import session
from cli.run.child_plugins import check_plugins, make_evaluators, make_trackers
from cli.run.local_tasks import LocalTasks
from cli.signals import handle_signals
from common.config.config import FederationConfig
from common.evaluation.metric_info import MAIN_METRIC, METRICS
from common.protocol.fields import RowKind
from coordinator.service import RunOutcome
from coordinator.storage.run import Run
from learning.training.device import detect

SUMMARY_METRICS = {**MAIN_METRIC, "sft": METRICS["sft"][1]}  # perplexity is better known


def run_federation(
    config: FederationConfig, mode: str, output: Output, screen: Lifeline | None = None
) -> int:
    """Run the federation and return the exit code.

    Args:
        config: Configuration of the run.
        mode: One of `coordinator.storage.run.StartMode`.
        output: Receives lines, events and progress.
        screen: Connection to the process with the screen, if there is one.
    """
    begun = time.time()
    check_plugins(config, output)
    tasks = LocalTasks(output.progress, output.print)
    with session.opened_run(config, mode, tasks, output, on_set_aside=lambda old: None) as run:
        federation = _make_federation(run, tasks, config, output)
        store = federation.store
        store.start()
        try:
            store.write_address(run.directory)
            output.print(
                f"watch it from another terminal: fccl tui --run {quote(str(run.directory))}"
            )
            if screen is not None:
                screen.started(store.url, run.directory)
            handle_signals([federation.stop_requested, federation.abandon_task])
            federation.start()
            outcome = federation.join()
            report = session.conclude(run, outcome, tasks, output)
            if report is not None:
                _print_report(run.directory, report, output)
            output.print(f"took {time.time() - begun:.0f} s")
            if screen is not None:
                screen.finished(summarize(outcome, report))
        finally:
            store.close()
    return session.exit_code(outcome)


def _make_federation(
    run: Run, tasks: LocalTasks, config: FederationConfig, output: Output
) -> EmbeddedFederation:
    return EmbeddedFederation(
        run,
        detect(),
        config.incremental,
        tasks.live_samples(run),
        FederationCallbacks(output.print_event, on_progress=output.progress),
        config.broker.site_mib << 20,
        tasks.update_scores(run),
        make_evaluators(run),
        make_trackers(run),
    )


def _print_report(directory: Path, report: Path, output: Output) -> None:
    output.print_markdown(report.read_text(encoding="utf-8"))
    output.print(f"report: {report}")
    quoted = quote(str(directory))
    output.print(f"replay: fccl tui --replay {quoted}")
    output.print(f"export the model: fccl export {quoted} exported --merge")


def summarize(outcome: RunOutcome, report: Path | None) -> str:
    """Return the outcome in one line: changes of the main metrics, or why there is no report."""
    if report is None:
        status = "failed" if outcome.failed else "stopped"
        return f"the run is over, {status}: {outcome.reason}; continue with --resume"
    kinds = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["kinds"]
    changes = (change for kind in kinds.items() if (change := _metric_change(*kind)))
    return "; ".join(["the run is over", *changes, f"report: {report}"])


def _metric_change(kind: RowKind, figures: Mapping[str, Any]) -> str:
    metric = SUMMARY_METRICS[kind]
    values = [version.get(metric.key) for version in figures["heldout"]]
    if len(values) < 2 or None in values:  # no held-out rows, or not a finite number
        return ""
    before, *_, after = (f"{value:.{metric.decimals}f}" for value in values)
    return f"{metric.title} {before} → {after} on unseen rows"
