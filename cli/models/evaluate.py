"""`fccl evaluate`: measure any version of a run beside its base, or two runs side by side.

Where all rows stay at the sites, these are asked (`cli/models/evaluate_sites.py`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from cli.console import Output
from cli.options import config_option
from cli.render import render
from common.paths import cache_dir
from common.protocol.fields import RowKind
from common.run_directory.recorded_run import RecordedRun, read_run

if TYPE_CHECKING:
    from cli.models.evaluate_sites import SiteAnswers
    from evaluation.evaluator import Evaluator
    from evaluation.report.report import Report
    from learning.progress import ProgressCallback
    from learning.training.device import Compute

_COUNT = click.IntRange(min=1)
_OF_ROWS = ("sft", "va", "kto", "cls", "gen_samples", "gen_tokens", "other", "precise")
"""Options about the rows of this machine."""
_OF_SITES = ("recorded", "config_path")
"""Options about sites that hold all rows."""


@dataclass(frozen=True)
class Evaluation:
    """Arguments of the command."""

    run: RecordedRun
    version: int
    rows: dict[RowKind, int]  # limits for each kind, both held-out and of each client
    samples: int  # held-out rows to answer
    new_tokens: int  # per answer
    other: RecordedRun | None  # the run to compare with
    precise: bool = False  # compute in float32


@click.command()
@click.argument("directory", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--version", type=click.IntRange(min=0), help="Version to evaluate [default: the newest]."
)
@click.option(
    "--sft", type=_COUNT, default=50, show_default=True, help="Instructions to use at most."
)
@click.option(
    "--va", type=_COUNT, default=50, show_default=True, help="Preferences to use at most."
)
@click.option("--kto", type=_COUNT, default=50, show_default=True, help="Ratings to use at most.")
@click.option("--cls", type=_COUNT, default=200, show_default=True, help="Texts to use at most.")
@click.option(
    "--gen-samples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Held-out rows to answer.",
)
@click.option(
    "--gen-tokens", type=_COUNT, default=30, show_default=True, help="Tokens of an answer."
)
@click.option(
    "--compare",
    "other",
    metavar="RUN2",
    type=click.Path(path_type=Path),
    help="Compare with the newest version of RUN2 on the same rows.",
)
@click.option(
    "--precise",
    is_flag=True,
    help="Compute in float32, also where training computes in bfloat16.",
)
@click.option(
    "--recorded",
    is_flag=True,
    help="Where all rows stay at the sites: show what is recorded, and ask no site.",
)
@config_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output, and nothing else."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write to [default: RUN/report, or STATE/report].",
)
@click.option(
    "--incremental",
    is_flag=True,
    help="Report on what clients of this machine learned from live input, instead of a run.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="With --incremental: the worker's state directory [default: .workers/ beside the run].",
)
@click.option("--client", help="With --incremental: this client only [default: all].")
@click.pass_context
def command(
    context: click.Context,
    directory: Path | None,
    version: int | None,
    sft: int,
    va: int,
    kto: int,
    cls: int,
    gen_samples: int,
    gen_tokens: int,
    other: Path | None,
    precise: bool,
    recorded: bool,
    config_path: Path | None,
    as_json: bool,
    out: Path | None,
    incremental: bool,
    state: Path | None,
    client: str | None,
) -> None:
    """Measure a version of RUN on rows that no task has seen: held-out rows and each client's.

    RUN is a run directory; the run may be in progress. The limits apply to the held-out rows and
    to those of each client. Writes evaluation.md, .json and .html.

    Where all rows stay at the sites (data.clients = 0), the sites that are live evaluate the
    version on their own rows, if the coordinator runs; --config names its configuration.

    With --incremental, report how well clients learned from live input, and what they forgot, from
    their inboxes; nothing is measured again. Writes incremental.md, .json and .html.
    """
    _check_options(context, directory, incremental)
    if directory is None:
        from cli.models import incremental as incremental_report

        sys.exit(incremental_report.run_report(state, client, out, as_json))
    run = read_run(directory)
    check_rows(context, run)
    out = out or directory / "report"
    answers = None
    if run.config.sites_only and not recorded:
        answers = _ask_sites(run, version, config_path, as_json)
        run = answers.run
        if version is None and answers.version in run.versions_on_disk():
            version = answers.version
    if not run.config.has_heldout:
        chosen = run.choose_version(version)
        sys.exit(show_recorded(run, chosen, answers, out, as_json))
    evaluation = Evaluation(
        run=run,
        version=run.choose_version(version),
        rows={"sft": sft, "va": va, "kto": kto, "cls": cls},
        samples=gen_samples,
        new_tokens=gen_tokens,
        other=None if other is None else read_run(other),
        precise=precise,
    )
    sys.exit(run_evaluation(evaluation, out, as_json, answers))


def _check_options(context: click.Context, directory: Path | None, incremental: bool) -> None:
    """Raise `click.UsageError` for options that would have no effect."""
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
            raise click.UsageError(f"{parameter.opts[0]} requires {other}", context)


def check_rows(context: click.Context, run: RecordedRun) -> None:
    """Raise `click.UsageError` for options that would have no effect on a run with such rows."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            continue
        if name in _OF_ROWS and not run.config.has_heldout:
            raise click.UsageError(
                f"{parameter.opts[0]} requires rows of the coordinator (evaluation.rows), and this"
                " run has none",
                context,
            )
        if name in _OF_SITES and not run.config.sites_only:
            raise click.UsageError(
                f"{parameter.opts[0]} requires a run whose rows all stay at the sites", context
            )


def _ask_sites(
    run: RecordedRun, version: int | None, config_path: Path | None, as_json: bool
) -> SiteAnswers:
    from cli.models.evaluate_sites import ask_sites

    output = Output(plain=False)
    on_progress = (lambda text, fraction: None) if as_json else output.progress
    answers = ask_sites(run, version, config_path, on_progress)
    output.end_progress()
    if answers.refused and not as_json:
        output.print(f"the sites were not asked: {answers.refused}")
        output.print("what is recorded:")
    return answers


def show_recorded(
    run: RecordedRun, version: int, answers: SiteAnswers | None, out: Path, as_json: bool
) -> int:
    """Print and write what the run directory records; return the exit code. No model is loaded."""
    from evaluation.report.report import recorded_report

    return _show(recorded_report(run, version), out, as_json, answers)


def run_evaluation(
    evaluation: Evaluation, out: Path, as_json: bool, answers: SiteAnswers | None = None
) -> int:
    """Evaluate, print and write; return the exit code.

    The report is printed before it is written: it took minutes, and the folder may be read-only.
    """
    from learning.progress import ignore_progress

    output = Output(plain=False)
    report = evaluate(evaluation, ignore_progress if as_json else output.progress)
    output.end_progress()
    return _show(report, out, as_json, answers)


def _show(report: Report, out: Path, as_json: bool, answers: SiteAnswers | None) -> int:
    from evaluation.report import files

    output = Output(plain=False)
    if as_json:
        fields = files.build_fields(report, history=False)
        if answers is not None:
            fields["sites"] = {"asked": answers.asked, "reason": answers.refused}
        click.echo(json.dumps(fields, indent=1))
        files.write_evaluation(report, out)
        return 0
    render(files.build_blocks(report, "evaluation_"), output.console)
    path = files.write_evaluation(report, out)
    click.echo(f"\nwritten: {path} and {path.with_suffix('.html').name}")
    return 0


def evaluate(evaluation: Evaluation, on_progress: ProgressCallback) -> Report:
    """Return the report on the version, with the comparison if there is another run."""
    from evaluation import comparison
    from evaluation.evaluator import EvaluationLimits
    from evaluation.report.build import build_report
    from learning.training.device import detect

    run, version, other = evaluation.run, evaluation.version, evaluation.other
    limits = EvaluationLimits(
        evaluation.rows, evaluation.rows, evaluation.samples, evaluation.new_tokens
    )
    if other is not None:
        comparison.check_comparable(run, other)
    compute = detect()
    if evaluation.precise:
        compute = replace(compute, autocast=False)
    evaluator = _evaluator(run, compute, on_progress)
    if other is None:
        return build_report(evaluator, version, limits, on_progress)
    second = _evaluator(other, compute, on_progress)
    newest = other.choose_version(None)
    both = comparison.compare(evaluator, version, second, newest, limits, on_progress)
    return replace(build_report(evaluator, version, limits, on_progress), comparison=both)


def _evaluator(run: RecordedRun, compute: Compute, on_progress: ProgressCallback) -> Evaluator:
    from evaluation.evaluator import Evaluator
    from preparation.base_model import find_base_model

    return Evaluator(run, find_base_model(run.base, cache_dir(), on_progress), compute)
