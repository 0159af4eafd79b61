"""`fccl evaluate`: how good any version of a run is, beside its base; or two runs side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from cli.console import Output
from cli.render import render
from common.paths import cache_dir
from common.protocol.fields import RowKind
from coordinator.storage.run_config import saved_config

if TYPE_CHECKING:
    from evaluation.opening import Opened
    from evaluation.report.report import Report

_COUNT = click.IntRange(min=1)
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    directory: Path
    version: int | None
    rows: tuple[int, int, int]  # sft, va, cls
    samples: int
    new_tokens: int
    other: Path | None


@click.command()
@click.argument("directory", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--version", type=click.IntRange(min=0), help="Which one [default: the newest].")
@click.option("--sft", type=_COUNT, default=50, show_default=True, help="Instructions, at most.")
@click.option("--va", type=_COUNT, default=50, show_default=True, help="Preferences, at most.")
@click.option("--cls", type=_COUNT, default=200, show_default=True, help="Texts, at most.")
@click.option(
    "--gen-samples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Held-out rows to answer.",
)
@click.option(
    "--gen-tokens", type=_COUNT, default=30, show_default=True, help="Length of an answer."
)
@click.option(
    "--compare",
    "other",
    metavar="RUN2",
    type=click.Path(path_type=Path),
    help="Its newest version on the same rows.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, nothing else.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write [default: RUN/report, or STATE/report].",
)
@click.option(
    "--incremental",
    is_flag=True,
    help="Instead of a run: what clients of this machine learned from live input.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="With --incremental: the worker's [default: .workers/ beside the run directory].",
)
@click.option("--client", help="With --incremental: this one only [default: all].")
@click.pass_context
def command(
    context: click.Context,
    directory: Path | None,
    version: int | None,
    sft: int,
    va: int,
    cls: int,
    gen_samples: int,
    gen_tokens: int,
    other: Path | None,
    as_json: bool,
    out: Path | None,
    incremental: bool,
    state: Path | None,
    client: str | None,
) -> None:
    """Measure a version of RUN on rows that no task has seen: held out, and of each client.

    RUN is a run directory; it may be running. The limits hold for the held-out rows and for those
    of each client. Writes evaluation.md, .json and .html.

    With --incremental, tell how well clients learned from live input, and what they forgot, from
    their inboxes; measures nothing anew. Writes incremental.md, .json and .html.
    """
    _check(context, directory, incremental)
    if directory is None:
        from cli.models import incremental as incremental_report

        sys.exit(incremental_report.serve(state, client, out, as_json))
    wanted = Wanted(directory, version, (sft, va, cls), gen_samples, gen_tokens, other)
    for named in (directory, other):
        if named is not None:
            saved_config(named)  # before torch is loaded, which takes seconds
    sys.exit(serve(wanted, out or directory / "report", as_json))


def _check(context: click.Context, directory: Path | None, incremental: bool) -> None:
    """Options that would do nothing are refused.

    Raises:
        click.UsageError: They do not go together.
    """
    if directory is None and not incremental:
        raise click.MissingParameter(ctx=context, param_hint="'RUN'", param_type="argument")
    if directory is not None and incremental:
        raise click.UsageError("RUN and --incremental exclude each other", context)
    shared = ("directory", "as_json", "out", "incremental")
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if given and name not in shared and (name in ("state", "client")) != incremental:
            other = "a RUN" if incremental else "--incremental"
            raise click.UsageError(f"{parameter.opts[0]} goes with {other}", context)


def serve(wanted: Wanted, out: Path, as_json: bool) -> int:
    """Evaluate, show and write; returns the exit code.

    Shown first: what took minutes is not lost where the folder cannot be written.
    """
    from evaluation.report import files

    output = Output(plain=False)
    report = evaluate(wanted, (lambda message, done: None) if as_json else output.progress)
    output.end_progress()
    if as_json:
        click.echo(json.dumps(files.fields(report, history=False), indent=1))
        files.write_evaluation(report, out)
        return 0
    render(files.blocks(report, "evaluation_"), output.console)
    path = files.write_evaluation(report, out)
    click.echo(f"\nwritten: {path} and {path.with_suffix('.html').name}")
    return 0


def evaluate(wanted: Wanted, told: Progress) -> Report:
    """The evaluation, and the comparison if one is wanted.

    Args:
        wanted: What.
        told: Told of the progress of a base model that is made or fetched.
    """
    from evaluation import comparison
    from evaluation.evaluator import EvaluationLimits
    from evaluation.report import report
    from learning.training.device import detect

    found, version = look(wanted.directory, wanted.version, told)
    sft, va, cls = wanted.rows
    limits: dict[RowKind, int] = {"sft": sft, "va": va, "cls": cls}
    sizes = EvaluationLimits(limits, limits, wanted.samples, wanted.new_tokens)
    if wanted.other is None:
        return report.build_report(found, version, detect(), sizes)
    other, theirs = look(wanted.other, None, told)
    comparison.check_comparable(found, other)
    compute = detect()
    both = comparison.compare(found, version, other, theirs, compute, sizes)
    return replace(report.build_report(found, version, compute, sizes), comparison=both)


def look(directory: Path, version: int | None, told: Progress) -> tuple[Opened, int]:
    """A run as it is now, and its version of that number; the newest for None."""
    from evaluation import opening, run_record
    from preparation import run

    found = run_record.read(directory)
    chosen = found.choose(version)
    find = run.find_base_model(found.config, cache_dir(), told)
    return opening.look(found, find(found.base)), chosen
