"""`fccl export`: write a version of a run as a directory to share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from cli.console import Output
from cli.models.export_delivered import export_delivered, refuse_with_site
from cli.options import plain_option
from common.errors import ConfigError, RunError
from common.paths import cache_dir
from common.run_directory.recorded_run import RecordedRun, read_run
from common.start_lock import only_start

if TYPE_CHECKING:
    from learning.models.export import ExportSummary, Precision


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="[RUN]")
@click.argument("out", type=click.Path(path_type=Path), required=False, metavar="OUT")
@click.option("--site", help="Write what a run delivered to this site, at the site's machine.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="With --site: the state directory, if the worker was started with --state.",
)
@click.option(
    "--version", type=click.IntRange(min=0), help="Version to export [default: the newest]."
)
@click.option("--best", is_flag=True, help="Export the best version by the clients' evaluations.")
@click.option(
    "--merge", is_flag=True, help="Merge the adapter into its base; the result is a plain model."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Precision of a merged model [default: float32].",
)
@click.option(
    "--with-base/--without-base",
    default=None,
    help="Include the base model with the adapter [default: if it is on no hub].",
)
@plain_option
def command(
    run: Path,
    out: Path | None,
    site: str | None,
    state: Path | None,
    version: int | None,
    best: bool,
    merge: bool,
    dtype: str | None,
    with_base: bool | None,
    plain: bool,
) -> None:
    """Write a version of RUN to OUT: a PEFT adapter or a merged model, with a model card.

    RUN is a run directory, finished, stopped or running; it is only read. OUT is created. A run
    that trained all parameters gives a whole model, with or without --merge.

    At the machine of an invited site, `--site NAME OUT` copies what was delivered to the site.
    """
    if site is not None:
        check_target(run)
        refuse_with_site({"RUN": out, "--version": version, "--merge": merge, "--dtype": dtype})
        with only_start(run):
            export_delivered(site, state, run, with_base=with_base, best=best, output=Output(plain))
        return
    if out is None:
        raise click.UsageError("Missing argument 'OUT'.")
    check_target(out)
    recorded = read_run(run)
    chosen = recorded.choose_version(find_best(recorded, version) if best else version)
    whole = merge or recorded.config.model.lora is None
    check_options(whole, dtype, with_base)
    with only_start(out):
        _export(recorded, chosen, merge, dtype, with_base, out, Output(plain))


def _export(
    run: RecordedRun,
    version: int,
    merge: bool,
    dtype: str | None,
    with_base: bool | None,
    out: Path,
    output: Output,
) -> None:
    from evaluation.export.export import ExportOptions, export_version
    from preparation.base_model import find_base_model

    check_target(out)  # another export may have ended just now
    base_path = find_base_model(run.base, cache_dir(), output.progress)
    options = ExportOptions(version, merge, cast("Precision | None", dtype), with_base)
    written = export_version(run, base_path, options, out)
    output.end_progress()
    output.print(f"version {version} of {run.directory} is in {out}: {describe(written)}")
    output.print(f"how to use it: {out / 'README.md'}")


def find_best(run: RecordedRun, version: int | None) -> int:
    """Return the best version of a run, by the evaluations of its clients.

    Raises:
        ConfigError: A version is named as well.
        RunError: Clients have evaluated none.
    """
    if version is not None:
        raise ConfigError("--best and --version exclude each other", "omit one of them")
    if run.best_version is None:
        raise RunError(
            f"{run.directory} names no best version: no client has evaluated one",
            "leave out --best, or name a --version",
        )
    return run.best_version


def check_target(out: Path) -> None:
    """Raise `ConfigError` if the path exists and is not an empty directory."""
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}", "choose another place") from None
    if taken:
        raise ConfigError(f"{out} exists and is not empty", "name a new directory")


def check_options(whole: bool, dtype: str | None, with_base: bool | None) -> None:
    """Raise `ConfigError` for an option that is for the other form of export."""
    if whole and with_base is not None:
        raise ConfigError(
            "--with-base and --without-base are for adapters, but this export is a whole model",
            "omit them",
        )
    if not whole and dtype is not None:
        raise ConfigError(
            "--dtype is for whole models; an adapter keeps the precision of its training",
            "add --merge, or omit --dtype",
        )


def describe(written: ExportSummary) -> str:
    if not written.adapter:
        return f"a whole model in {written.precision}"
    where = "in base/" if written.base_included else f"not included: {written.base}"
    return f"a PEFT adapter; its base model is {where}"
