"""`fccl init`: write a configuration to start from."""

from __future__ import annotations

from pathlib import Path

import click

from common.config.template import TEMPLATE
from common.errors import ConfigError


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("federation.toml"))
def command(path: Path) -> None:
    """Write a commented federation.toml with every key and its default."""
    target = path / "federation.toml" if path.is_dir() else path
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{target} exists", "name another file, or remove it") from None
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}", "name a writable place") from None
    click.echo(f"wrote {target}")
