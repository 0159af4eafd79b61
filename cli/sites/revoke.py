"""`fccl revoke`: ends a site's access."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import config_option, find_config
from cli.run.coordinator import access_of
from common.config import loader
from common.store.store import connect


@click.command()
@click.argument("name")
@config_option
def command(name: str, config_path: Path | None) -> None:
    """Remove the credentials of site NAME and end its connections, at once.

    Updates that were accepted from it stay in the model: an average cannot be taken apart.
    """
    config = loader.load(find_config(config_path))
    was = access_of(config, connect(config.store.url, ca=config.store.ca)).revoke(name)
    text = "its connections are closed" if was.state == "joined" else "its token is void"
    click.echo(f"site {name} is revoked: {text}; the coordinator gives it no more tasks")
