"""`fccl status`: the current state of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
from rich.console import Console

from cli.options import config_option, find_config, run_option
from common.config import loader
from common.store import view as federation_view
from common.store.embedded import read_address
from common.store.store import connect
from tui.status_panel import status_panel


@click.command()
@config_option
@run_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(config_path: Path | None, directory: Path | None, as_json: bool) -> None:
    """Show phase, version, buffer, clients, workers, queues and the last events of a run."""
    config = loader.load(find_config(config_path))
    url = read_address(directory) if directory else config.store.url
    store = connect(url, ca=config.store.ca)
    view = federation_view.read(store, directory.name if directory else config.run.name)
    if as_json:
        click.echo(json.dumps(view.fields(), indent=2))
    else:
        Console().print(status_panel(view, time.time()))
