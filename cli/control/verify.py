"""`fccl verify`: recomputes the versions of a run from its journal and its kept updates."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.exit_codes import DISAGREEMENT, UNVERIFIED
from common.run_directory.recorded_run import format_ranges

if TYPE_CHECKING:
    from evaluation.verification.verify import Verification


@click.command()
@click.argument("directory", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(directory: Path, as_json: bool) -> None:
    """Recompute every version of the run directory RUN, and compare with its journal.

    Checks that every accepted update is in exactly one version, with the weight that follows from
    the recorded losses and counts, and that every version on the disk has its digest. Where updates
    were kept (run.keep_updates), recomputes the versions from them, to the bit, also those that
    were removed. Nothing is written, and a coordinator may run.

    The exit code is 0 if every version was recomputed and is right, 1 if something is wrong, and 12
    if nothing is wrong but not every version could be recomputed.
    """
    from evaluation.verification.verify import verify

    found = verify(directory)
    if as_json:
        fields = asdict(found) | {"right": found.right, "complete": found.complete}
        click.echo(json.dumps(fields, indent=2))
    else:
        _print(found)
    sys.exit(DISAGREEMENT if not found.right else 0 if found.complete else UNVERIFIED)


def _print(found: Verification) -> None:
    waiting = f", {found.buffered} wait for one" if found.buffered else ""
    newest = found.versions[-1].version if found.versions else 0
    click.echo(f"run {found.run}: versions 0 to {newest}, {found.updates} updates in them{waiting}")
    if equal := [each.version for each in found.versions if each.recomputed]:
        click.echo(f"recomputed, equal to the bit: {format_ranges(equal)}")
    if same := [each.version for each in found.versions if each.file == "same"]:
        click.echo(f"on the disk, with the digest of the journal: {format_ranges(same)}")
    reasons = defaultdict[str, list[int]](list)
    for each in found.versions:
        if each.reason:
            reasons[each.reason].append(each.version)
    for reason, versions in reasons.items():
        click.echo(f"not recomputed: {format_ranges(versions)} ({reason})")
    for each in found.versions:
        for problem in each.problems:
            click.echo(f"! version {each.version}: {problem}")
    for problem in found.problems:
        click.echo(f"! {problem}")
    click.echo(_verdict(found))


def _verdict(found: Verification) -> str:
    count = sum(len(each.problems) for each in found.versions) + len(found.problems)
    if count:
        return "1 problem" if count == 1 else f"{count} problems"
    if found.complete:
        return "everything is right"
    return "nothing is wrong, but not every version could be recomputed"
