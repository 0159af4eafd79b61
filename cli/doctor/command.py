"""`fccl doctor`: what is reachable, installed and fast, and what to do about the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.text import Text

from broker.protocol import LOCAL, Site
from cli.doctor import machine, servers
from cli.doctor.checks import Check, Examination, Side, Situation, examine
from cli.options import config_option, find_config, plain_option
from cli.run import join_site
from common.config import loader
from common.config.config import FederationConfig
from common.paths import cache_dir
from common.protocol.naming import LOCAL_SITE
from worker.site import identity

FOUND_FAULT = 1

CHECKS: tuple[Examination, ...] = (
    Examination("broker", servers.check_broker),
    Examination("management", servers.check_management),
    Examination("store", servers.check_store),
    Examination("clock", servers.check_clock),
    Examination("run", servers.check_run, 20.0),
    Examination("software", machine.check_software),
    # These may import torch, read whole data sets and hash whole models.
    Examination("model", machine.check_model, 120.0),
    Examination("data", machine.check_data, 120.0),
    Examination("disk", machine.check_disk),
    Examination("compute", machine.check_compute, 60.0),
)
COORDINATORS = {"management"}
"""Checks of what only a coordinator needs."""

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@config_option
@click.option(
    "--side",
    type=click.Choice(["coordinator", "worker"]),
    default="coordinator",
    help="Whose machine this is: a worker may do less, and needs less [coordinator].",
)
@click.option(
    "--site",
    default=LOCAL_SITE,
    help="The site of a worker; an invited one is asked as itself [local].",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Rows to look at: a file, or a worker's folder of client files [those configured].",
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@plain_option
def command(
    config_path: Path | None, side: str, site: str, data: Path | None, as_json: bool, plain: bool
) -> None:
    """Check servers, clock, software, model, data, disk and processors; say what to mend.

    Nothing is written, downloaded or made. Exit code 1 where a check failed; warnings do not count.
    """
    config = loader.load(find_config(config_path))
    if Site(site) != LOCAL:
        side = "worker"
        config, data = _invited(site, config.run.name, data)
    situation = Situation(config, cast(Side, side), data, cache_dir(), site)
    wanted = [each for each in CHECKS if side == "coordinator" or each.name not in COORDINATORS]
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        found = list(examine(wanted, situation))
        click.echo(json.dumps({"checks": [asdict(check) for check in found]}, indent=2))
    elif plain or not console.is_terminal:
        found = _printed(examine(wanted, situation))
    else:
        found = _shown(console, wanted, situation)
    if any(check.status == "fail" for check in found):
        sys.exit(FOUND_FAULT)


def _invited(site: str, name: str, data: Path | None) -> tuple[FederationConfig, Path]:
    """How an invited site reaches its federation, and the rows that it serves.

    Raises:
        JoinError: This machine has not joined as that site.
    """
    wanted = join_site.site_request(None, site, name)
    mine = identity.load(wanted.directory)
    assert mine is not None  # `wanted` has found it
    return identity.worker_config(mine, wanted.directory), data or wanted.directory / "data"


def _printed(checks: Iterable[Check]) -> list[Check]:
    found = []
    for check in checks:
        print(_head(check) + check.text, flush=True)
        if check.remedy:
            print(f"{'':17}to mend: {check.remedy}", flush=True)
        found.append(check)
    return found


def _shown(console: Console, wanted: list[Examination], situation: Situation) -> list[Check]:
    found = []
    with console.status("") as status:
        for check in examine(wanted, situation, lambda name: status.update(f"checking {name} …")):
            line = Text(_head(check), style=_COLOURS[check.status]).append(check.text, "default")
            console.print(line)
            if check.remedy:
                console.print(Text(f"{'':17}to mend: {check.remedy}", "dim"))
            found.append(check)
    return found


def _head(check: Check) -> str:
    return f"{check.status:4}  {check.name:10} "
