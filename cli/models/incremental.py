"""`fccl evaluate --incremental`: report on what this machine's clients learned from live input."""

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


def run_report(state: Path | None, client: str | None, out: Path | None, as_json: bool) -> int:
    """Print and write the report; return the exit code.

    Args:
        state: The worker's state directory; None for that of the configured run.
        client: The only client to report on; None for all.

    Raises:
        DataError: There is no such inbox, or nothing has been learned yet.
        RunError: The folder cannot be written.
    """
    directory = state or Path(loader.load(find_config(None)).run.dir) / ".workers"
    histories = read_histories(directory, client)
    values = json.dumps({"state": str(directory), **report.fields(histories)}, indent=1)
    blocks = report.blocks(histories)
    if as_json:
        click.echo(values)
    else:
        render(blocks, Output(plain=False).console)
    folder = out or directory / "report"
    pictures = plots.pictures(histories)
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


def read_histories(state: Path, client: str | None) -> list[ClientHistory]:
    clients = history.clients(state)
    if not clients:
        raise DataError(
            f"{state} holds no inbox",
            "send input to a client with `fccl learn` or `fccl try`, or name the worker's --state",
        )
    if client is not None and client not in clients:
        raise DataError(
            f"{state} holds no inbox of client {client!r}", f"choose one of {', '.join(clients)}"
        )
    histories = [history.read(state, each) for each in clients if client in (None, each)]
    if not any(each.batches for each in histories):
        waiting = sum(each.items["waiting"] for each in histories)
        raise DataError(
            f"nothing has been learned from live input yet: {waiting} items wait in {state}",
            "start a worker that serves these clients: `fccl worker`",
        )
    return histories
