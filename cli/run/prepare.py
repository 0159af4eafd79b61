"""`fccl prepare`: partition the rows by client, and show the skew before a run begins."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from cli.console import Output
from cli.options import config_option, find_config, plain_option
from common.config import loader
from common.errors import ConfigError
from common.paths import cache_dir


@click.command()
@config_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the clients' files [default: data.dir of the configuration].",
)
@plain_option
def command(config_path: Path | None, out: Path | None, plain: bool) -> None:
    """Fetch or make the rows that the plan needs, and partition them by client.

    Writes client_<i>_{sft,va,cls}.jsonl, held-out rows, and a table and a picture of the skew. A
    coordinator whose data.dir names the folder begins with these rows.
    """
    config = loader.load(find_config(config_path))
    if config.sites_only:
        raise ConfigError(
            "there is nothing to deal: with data.clients = 0 all rows stay at the sites",
            "`fccl coordinator` begins such a run",
        )
    folder = out or (Path(config.data.dir) if config.data.dir else None)
    if folder is None:
        raise ConfigError("no folder is named for the prepared rows", "set data.dir, or give --out")
    output = Output(plain)
    from learning.data import prepared_data
    from preparation.base_model import apply_offline_fallback, resolve_base_model
    from preparation.data import is_prepared, prepare_rows

    config = apply_offline_fallback(config, output.print)
    already_prepared = is_prepared(folder)
    find_model = partial(resolve_base_model, config, cache_dir(), output.progress)
    prepared = prepare_rows(config, find_model, folder, output.print)
    output.end_progress()
    if already_prepared:
        output.print(f"{folder} was prepared before; its rows are unchanged")
    skew = prepared_data.skew_tables(prepared_data.load(folder))
    output.console.print(skew, markup=False)
    for client, rows in prepared.rows.items():
        counts = ", ".join(f"{count} {kind}" for kind, count in rows.items())
        output.print(f"{client}: {counts} training rows")
    if config.data.dir is None or Path(config.data.dir) != folder:
        output.print(f'set data.dir = "{folder}" to begin a run with these rows')
