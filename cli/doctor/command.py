"""`fccl doctor`: checks servers, installation and speed, and names remedies."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.text import Text

from broker.protocol import LOCAL, Site
from cli.doctor import machine, memory, servers, settings
from cli.doctor.checks import CheckContext, CheckResult, CheckSpec, Side, run_checks
from cli.options import config_option, find_config, plain_option
from cli.run import join_site
from cli.run.job import settings_path
from cli.run.join_site import SiteRequest
from common.config import loader
from common.config.config import FederationConfig
from common.paths import cache_dir
from common.protocol.naming import LOCAL_SITE
from worker.site import identity

CHECK_FAILED = 1

CHECKS: tuple[CheckSpec, ...] = (
    CheckSpec("broker", servers.check_broker),
    CheckSpec("management", servers.check_management),
    CheckSpec("store", servers.check_store),
    CheckSpec("clock", servers.check_clock),
    CheckSpec("run", servers.check_run, 20.0),
    CheckSpec("settings", settings.check_settings),
    CheckSpec("software", machine.check_software),
    # These may import torch, read whole data sets and hash whole models.
    CheckSpec("model", machine.check_model, 120.0),
    CheckSpec("data", machine.check_data, 120.0),
    CheckSpec("disk", machine.check_disk),
    CheckSpec("compute", machine.check_compute, 60.0),
    CheckSpec("memory", memory.check_memory, 60.0),
)
ONE_SIDE: Mapping[str, Side] = {
    "management": "coordinator",
    "settings": "worker",
    "memory": "worker",
}
"""Checks of one side only."""

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@config_option
@click.option(
    "--side",
    type=click.Choice(["coordinator", "worker"]),
    default="coordinator",
    help="The side of this machine: a worker has fewer rights, and needs fewer [coordinator].",
)
@click.option(
    "--site",
    default=LOCAL_SITE,
    help="The site of a worker; servers are checked with the login of an invited site [local].",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Rows to check: a file, or a worker's folder of client files [the configured ones].",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Directory of a worker's settings (worker.toml) [that of `fccl worker`].",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plain_option
def command(
    config_path: Path | None,
    side: str,
    site: str,
    data: Path | None,
    state: Path | None,
    as_json: bool,
    plain: bool,
) -> None:
    """Check servers, clock, software, model, data, disk and processors, and name remedies.

    Nothing is written, downloaded or built. The exit code is 1 if a check failed; warnings do
    not change it.
    """
    config = loader.load(find_config(config_path))
    request = None
    if Site(site) != LOCAL:
        side = "worker"
        request = join_site.site_request(None, site, config.run.name)
        config, data = _invited_site(request, data)
    own = settings_path(config, request, state)
    context = CheckContext(config, cast(Side, side), data, cache_dir(), site, own)
    checks = [each for each in CHECKS if ONE_SIDE.get(each.name, side) == side]
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        results = list(run_checks(checks, context))
        click.echo(json.dumps({"checks": [asdict(check) for check in results]}, indent=2))
    elif plain or not console.is_terminal:
        results = _print_lines(run_checks(checks, context))
    else:
        results = _print_live(console, checks, context)
    if any(check.status == "fail" for check in results):
        sys.exit(CHECK_FAILED)


def _invited_site(request: SiteRequest, data: Path | None) -> tuple[FederationConfig, Path]:
    """Return the configuration of an invited site, and the folder of its rows."""
    directory = request.directory
    own = identity.load(directory)
    assert own is not None  # `site_request` has found it
    return identity.worker_config(own, directory), data or directory / "data"


def _print_lines(results: Iterable[CheckResult]) -> list[CheckResult]:
    printed = []
    for check in results:
        print(_head(check) + check.text, flush=True)
        if check.remedy:
            print(f"{'':17}remedy: {check.remedy}", flush=True)
        printed.append(check)
    return printed


def _print_live(
    console: Console, checks: list[CheckSpec], context: CheckContext
) -> list[CheckResult]:
    results = []
    with console.status("") as status:
        for check in run_checks(checks, context, lambda name: status.update(f"checking {name} …")):
            line = Text(_head(check), style=_COLOURS[check.status]).append(check.text, "default")
            console.print(line)
            if check.remedy:
                console.print(Text(f"{'':17}remedy: {check.remedy}", "dim"))
            results.append(check)
    return results


def _head(check: CheckResult) -> str:
    return f"{check.status:4}  {check.name:10} "
