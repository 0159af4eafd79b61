"""`fccl simulate`: a whole federation in virtual time, with virtual clients."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import click

from cli import checks
from cli.console import Output
from cli.exit_codes import INTERRUPTED
from cli.options import config_option, find_config, plain_option
from cli.signals import handle_signals
from cli.simulate.grid import simulate_grid
from common.config import loader
from common.config.config import FederationConfig
from coordinator.storage import run as runs
from simulation.records import INTERRUPTED as CUT_SHORT
from simulation.records import SimulationSummary


@click.command()
@config_option
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [run.dir/run.name].")
@click.option("--new", is_flag=True, help="Move an existing run aside and start over.")
@click.option(
    "--grid",
    multiple=True,
    metavar="KEY=V1,V2|FILE",
    help="Simulate with each of these values; may be repeated.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that simulate the cells of a grid.",
)
@click.option("--report", is_flag=True, help="Write the final report at the end.")
@plain_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and no lines.")
def command(
    config_path: Path | None,
    out: Path | None,
    new: bool,
    grid: tuple[str, ...],
    jobs: int,
    report: bool,
    plain: bool,
    as_json: bool,
) -> None:
    """Simulate a run in virtual time, and write an ordinary run directory.

    The clients of [data] train for real, one after another in this process; how long that takes
    follows from [simulation]. The same settings give the same versions, bit for bit.

    With --grid the run directory becomes a folder with a run for each combination of the values,
    and a table of all of them. Cells that are finished are not simulated again.
    """
    if grid and new:
        raise click.UsageError("--grid and --new exclude each other")
    if grid and report:
        raise click.UsageError("--grid writes no reports; simulate one run with --report")
    if jobs > 1 and not grid:
        raise click.UsageError("--jobs needs --grid")
    config = _placed(loader.load(find_config(config_path)), out)
    output = Output(plain or as_json)
    if grid:
        simulate_grid(config, grid, config.run.path, jobs, output, as_json=as_json)
        return
    checks.check_can_start(config, "new" if new else "start")
    if report and config.simulation.objective == "analytic":
        raise click.UsageError("--report evaluates a model, and the analytic objective has none")
    if new:
        runs.set_aside(config)
    summary = _simulate(config, output, quiet=as_json)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        _print(summary, config, output)
    if summary.reason == CUT_SHORT:
        sys.exit(INTERRUPTED)
    if report:
        _write_report(config.run.path, output, quiet=as_json)


def _placed(config: FederationConfig, out: Path | None) -> FederationConfig:
    if out is None:
        return config
    table = config.model_dump()
    table["run"] |= {"dir": str(out.parent), "name": out.name}
    return loader.parse(table, "fccl simulate --out")


def _simulate(config: FederationConfig, output: Output, *, quiet: bool) -> SimulationSummary:
    from simulation.run import SimulationCallbacks, simulate

    total = sum(phase.versions for phase in config.phase)

    def on_version(version: int, seconds: float) -> None:
        text = f"version {version} of {total}" if output.live else f"simulating {total} versions"
        output.progress(text, version / total)

    callbacks = SimulationCallbacks()
    if not quiet:
        callbacks = SimulationCallbacks(output.progress, output.print, on_version)
    stop = threading.Event()
    handle_signals([stop])
    try:
        return simulate(config, callbacks, stop)
    finally:
        output.end_progress()


def _print(summary: SimulationSummary, config: FederationConfig, output: Output) -> None:
    output.print(
        f"{summary.reason}: version {summary.versions} in {config.run.path} after"
        f" {summary.seconds:,.0f} virtual seconds ({summary.wall_s:,.1f} s here)"
    )
    output.print(
        f"{summary.tasks} tasks, {summary.updates} updates accepted, {summary.rejected} rejected,"
        f" {summary.lost} lost; {summary.bytes_up / 1e6:,.1f} MB up,"
        f" {summary.bytes_down / 1e6:,.1f} MB down"
    )
    if summary.final_loss is not None:
        metrics = "".join(f", {key} {value:.4f}" for key, value in summary.final_metrics.items())
        output.print(f"held-out loss {summary.final_loss:.4f}{metrics}")
    if summary.target_s is not None:
        output.print(
            f"loss {config.simulation.target_loss:g} after {summary.target_s:,.0f} virtual seconds"
        )


def _write_report(directory: Path, output: Output, *, quiet: bool) -> None:
    from cli.run.local_tasks import find_recorded_base, write_final_report
    from learning.progress import ignore_progress

    on_progress = ignore_progress if quiet else output.progress
    path = write_final_report(directory, find_recorded_base(directory, on_progress), on_progress)
    output.end_progress()
    if not quiet:
        output.print(f"report: {path}")
