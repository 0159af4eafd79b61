"""`fccl evaluate --incremental`: how well the clients of this machine learned from live input."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli.console import Output
from cli.options import find_config
from cli.render import render
from common.config import loader
from common.document.files import write_files
from common.document.html_page import to_html
from common.document.markdown import to_markdown
from common.errors import DataError
from worker.incremental.report import history, plots, report
from worker.incremental.report.history import ClientHistory

NAME = "incremental"


def serve(state: Path | None, client: str | None, out: Path | None, as_json: bool) -> int:
    """Read, show and write; returns the exit code.

    Args:
        state: The worker's state directory; None for that of the configured run.
        client: One client only.
        out: Where to write.
        as_json: JSON on standard output, and nothing else.

    Raises:
        DataError: There is no such inbox, or nothing was learned yet.
        RunError: The folder cannot be written.
    """
    place = state or Path(loader.load(find_config(None)).run.dir) / ".workers"
    found = look(place, client)
    values = json.dumps({"state": str(place), **report.fields(found)}, indent=1)
    blocks = report.blocks(found)
    if as_json:
        click.echo(values)
    else:
        render(blocks, Output(plain=False).console)
    folder = out or place / "report"
    pictures = plots.pictures(found)
    contents = {
        **pictures,
        f"{NAME}.json": values.encode(),
        f"{NAME}.html": to_html(blocks, "Learned from live input", pictures).encode(),
        f"{NAME}.md": to_markdown(blocks).encode(),
    }
    write_files(folder, contents)
    if not as_json:
        click.echo(f"\nwritten: {folder / f'{NAME}.md'} and {NAME}.html")
    return 0


def look(state: Path, client: str | None) -> list[ClientHistory]:
    """The histories that are asked for.

    Raises:
        DataError: There is no such inbox, or nothing was learned yet.
    """
    there = history.clients(state)
    if not there:
        raise DataError(
            f"{state} holds no inbox",
            "give a client something with `fccl learn` or `fccl try`, or name the worker's --state",
        )
    if client is not None and client not in there:
        raise DataError(f"{state} holds no inbox of {client!r}", f"there are: {', '.join(there)}")
    found = [history.read(state, each) for each in there if client in (None, each)]
    if not any(each.batches for each in found):
        waiting = sum(each.items["waiting"] for each in found)
        raise DataError(
            f"nothing was learned yet from live input: {waiting} items wait in {state}",
            "a worker that serves their clients learns them: `fccl worker`",
        )
    return found
