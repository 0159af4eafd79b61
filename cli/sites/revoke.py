"""`fccl revoke`: ends the access of a site."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import config_option, find_config
from cli.run.coordinator import make_site_access
from common.config import loader
from common.store.store import connect


@click.command()
@click.argument("name")
@config_option
def command(name: str, config_path: Path | None) -> None:
    """Remove the credentials of site NAME and close its connections.

    Updates that were accepted from the site stay in the model: an average cannot be undone.
    """
    config = loader.load(find_config(config_path))
    site = make_site_access(config, connect(config.store.url, ca=config.store.ca)).revoke(name)
    text = (
        "its connections are closed" if site.state == "joined" else "its token is no longer valid"
    )
    click.echo(f"site {name} is revoked: {text}; the coordinator gives it no more tasks")
