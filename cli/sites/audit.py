"""`fccl audit`: compares a site's own log with the coordinator's journal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from cli.exit_codes import DISAGREEMENT
from cli.sites.comparison import AuditRow, compare
from common.errors import RunError
from common.run_directory.site_journal import read_site_journal
from tui.text_table import TextTable
from worker.site.sent_log import SentLog, read_log


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the run at its coordinator, or a copy of it.",
)
@click.option("--site", help="The site whose log it is [as the log says].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(log: Path, directory: Path, site: str | None, as_json: bool) -> None:
    """Compare LOG, a site's sent.jsonl, with what the coordinator has journaled.

    Lists every update and every result of an evaluation that the site has sent or that the
    coordinator has accepted under its name. The exit code is 0 if all agree, else 1.
    """
    sent = read_log(log)
    journal = read_site_journal(directory, site or _site_of(log, sent))
    rows = compare(sent, journal)
    agree = all(row.agrees for row in rows)
    if as_json:
        fields = {"run": journal.run, "site": journal.site, "agree": agree}
        click.echo(json.dumps({**fields, "answers": [asdict(row) for row in rows]}, indent=2))
    else:
        _print(rows, journal.run, journal.site)
    sys.exit(0 if agree else DISAGREEMENT)


def _site_of(path: Path, log: SentLog) -> str:
    names = sorted({each.site for each in log.sent})
    if len(names) != 1:
        found = f"is of several sites: {', '.join(names)}" if names else "names no site"
        raise RunError(f"the log {path} {found}", "name the site with --site")
    return names[0]


def _print(rows: Sequence[AuditRow], run: str, site: str) -> None:
    table = TextTable("what", "task", "client", "version", "bytes", "norm", "sha256", "", box=None)
    for row in rows:
        norm = "-" if row.norm is None else f"{row.norm:.4g}"
        mark = "" if row.agrees else "! "
        table.add_row(
            *(row.kind, f"{row.task}.{row.attempt}", row.client, str(row.version)),
            *(f"{row.bytes:,}", norm, row.sha256[:12], f"{mark}{row.status}"),
        )
    if rows:
        Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
    wrong = sum(not row.agrees for row in rows)
    result = f"{wrong} do not agree" if wrong else "all agree"
    click.echo(f"site {site}, run {run}: {len(rows)} updates and evaluations, {result}")
