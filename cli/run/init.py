"""`fccl init`: write a configuration to start from."""

from __future__ import annotations

from pathlib import Path

import click

from common.config.sites_only_template import SITES_ONLY_TEMPLATE
from common.config.template import TEMPLATE
from common.errors import ConfigError


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("federation.toml"))
@click.option(
    "--sites-only",
    is_flag=True,
    help="Write a short plan whose rows all stay at invited sites (data.clients = 0).",
)
def command(path: Path, sites_only: bool) -> None:
    """Write a commented federation.toml with every key and its default."""
    target = path / "federation.toml" if path.is_dir() else path
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(SITES_ONLY_TEMPLATE if sites_only else TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{target} exists", "name another file, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}", "name a writable place") from None
    click.echo(f"wrote {target}")
