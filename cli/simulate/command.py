"""`fccl simulate`: a whole federation in virtual time, with virtual clients."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import checks
from cli.console import Output
from cli.exit_codes import INTERRUPTED
from cli.options import config_option, find_config, plain_option
from cli.signals import handle_signals
from common.config import loader
from common.config.config import FederationConfig
from coordinator.storage import run as runs

if TYPE_CHECKING:
    from simulation.records import SimulationSummary


@click.command()
@config_option
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [run.dir/run.name].")
@click.option("--new", is_flag=True, help="Move an existing run aside and start over.")
@plain_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and no lines.")
def command(
    config_path: Path | None, out: Path | None, new: bool, plain: bool, as_json: bool
) -> None:
    """Simulate a run in virtual time, and write an ordinary run directory.

    The clients of [data] train for real, one after another in this process; how long that takes
    follows from [simulation]. The same settings give the same versions, bit for bit.
    """
    config = _placed(loader.load(find_config(config_path)), out)
    checks.check_can_start(config, "new" if new else "start")
    output = Output(plain or as_json)
    if new:
        runs.set_aside(config)
    summary = _simulate(config, output, quiet=as_json)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
    else:
        _print(summary, config, output)
    if summary.reason == "interrupted":
        sys.exit(INTERRUPTED)


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
