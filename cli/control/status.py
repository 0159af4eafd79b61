"""`fccl status`: the current state of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.console import Console

from cli.options import config_option, find_config, run_option
from common.config import loader
from common.run_directory.recorded_run import read_run
from common.store import view as federation_view
from common.store.embedded import ADDRESS_FILE, read_address
from common.store.store import connect
from tui.data.recorded_views import view_at
from tui.status_panel import status_panel


@click.command()
@config_option
@run_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config_path: Path | None, directory: Path | None, as_json: bool) -> None:
    """Show phase, version, buffer, clients, workers, queues and the last events of a run.

    With --run it is a demo that runs in another terminal, or the end of a recorded run: of a demo
    or a simulation that is over, or of a coordinator's run directory.
    """
    config = loader.load(find_config(config_path))
    now = time.time()
    if directory is not None and is_recorded(directory):
        run = read_run(directory)
        view, now = view_at(run, run.ended_at), run.ended_at
    else:
        url = read_address(directory) if directory else config.store.url
        store = connect(url, ca=config.store.ca)
        view = federation_view.read(store, directory.name if directory else config.run.name)
    if as_json:
        click.echo(json.dumps(view.fields(), indent=2))
    else:
        Console().print(status_panel(view, now))


def is_recorded(directory: Path) -> bool:
    """Return whether a directory holds a run, and no process that runs it has a store there."""
    return (directory / "run.db").exists() and not (directory / ADDRESS_FILE).exists()
