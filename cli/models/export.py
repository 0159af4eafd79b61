"""`fccl export`: a version of a run as a directory that others can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from cli.console import Output
from cli.options import plain_option
from common.errors import ConfigError
from common.paths import cache_dir
from evaluation import run_record

if TYPE_CHECKING:
    from learning.models.export import ExportSummary, Precision


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--version", type=click.IntRange(min=0), help="Which one [default: the newest].")
@click.option("--merge", is_flag=True, help="Merge the adapter into its base: a plain model.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="How a merged model is stored [default: float32].",
)
@click.option(
    "--with-base/--without-base",
    default=None,
    help="Put the base model beside the adapter [default: where it is on no hub].",
)
@plain_option
def command(
    run: Path,
    out: Path,
    version: int | None,
    merge: bool,
    dtype: str | None,
    with_base: bool | None,
    plain: bool,
) -> None:
    """Write a version of RUN to OUT: a PEFT adapter or a merged model, with a model card.

    RUN is a run directory, finished, stopped or running; it is only read. OUT is made. A run that
    trained all parameters gives a whole model, with --merge and without.
    """
    check_place(out)
    found = run_record.read(run)
    chosen = found.choose(version)
    whole = merge or found.config.model.lora is None
    check_options(whole, dtype, with_base)
    from evaluation.export import export

    output = Output(plain)
    wanted = export.ExportOptions(chosen, merge, cast("Precision | None", dtype), with_base)
    written = export.export_version(found, wanted, out, cache_dir(), output.progress)
    output.end_progress()
    output.print(f"version {chosen} of {run} is in {out}: {described(written)}")
    output.print(f"how to use it: {out / 'README.md'}")


def check_place(out: Path) -> None:
    """Refuse to write over anything.

    Raises:
        ConfigError: Something is there that is not an empty directory.
    """
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}", "choose another place") from None
    if taken:
        raise ConfigError(f"{out} exists and is not empty", "name a new directory")


def check_options(whole: bool, dtype: str | None, with_base: bool | None) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigError: They are for the other form of export.
    """
    if whole and with_base is not None:
        raise ConfigError(
            "--with-base and --without-base are for adapters, this export is a whole model",
            "leave them out",
        )
    if not whole and dtype is not None:
        raise ConfigError(
            "--dtype is for whole models, an adapter stays as it was trained",
            "add --merge, or leave it out",
        )


def described(written: ExportSummary) -> str:
    """What was written, in a few words."""
    if not written.adapter:
        return f"a whole model in {written.precision}"
    where = "in base/" if written.base_included else f"not included: {written.base}"
    return f"a PEFT adapter; its base model is {where}"
