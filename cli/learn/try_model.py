"""`fccl try`: ask a client's current model, and correct its answers.

The module is not called after the command, since `try` is a keyword of Python.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from cli import streams
from cli.exit_codes import OUTPUT_LOST
from cli.learn.answers import Answers, blocks, fields, line
from cli.learn.location import InboxLocation, inbox_options, locate_inbox, task_option
from common.paths import cache_dir
from worker.incremental.inbox import items
from worker.incremental.serving import served_run
from worker.settings import loader as site_settings

if TYPE_CHECKING:
    from worker.incremental.serving.predictor import Predictor

MAX_SAMPLES = 3  # attempts to sample an answer that differs from the most probable one


@click.command("try")
@click.argument("text", required=False)
@click.option(
    "--compare",
    is_flag=True,
    help="Give two answers to choose from: the most probable and a sampled one.",
)
@click.option("--base", "common", is_flag=True, help="Also show the answer of the global version.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each text.")
@click.option(
    "--gen-tokens",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Limit on the tokens of an answer.",
)
@task_option
@inbox_options
def command(
    text: str | None,
    compare: bool,
    common: bool,
    as_json: bool,
    gen_tokens: int,
    task: str,
    client: str | None,
    state: Path | None,
    site: str,
    directory: Path | None,
    config_path: Path | None,
) -> None:
    """Answer TEXT with a client's model, including everything it has learned so far.

    Without TEXT, a terminal starts a conversation in which each answer can be corrected, or rated
    with + or -: that goes into the client's inbox, and the model answers again when it has learned
    it.
    From a pipe, each line is answered with one line.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # invalid bytes do not end it
    interactive = text is None and is_terminal()
    if interactive and as_json:
        raise click.UsageError("--json requires a TEXT, or lines from a pipe")
    if text is not None and not text.strip():
        raise click.UsageError("TEXT is empty")
    items.check_task(task)
    location = locate_inbox(config_path, directory, site, state, client)
    _check_compare(location, compare)
    with _loading():
        answerer = Answerer(_load_predictor(location), compare, common, gen_tokens)
    if interactive:
        _converse(location, answerer, task)
        return
    texts: Iterable[str] = sys.stdin if text is None else [text]
    for each in texts:
        if stripped := _replace_surrogates(each).strip():
            answers = answerer.answer(stripped)
            if as_json:
                click.echo(json.dumps(fields(answers, location.client)))
            else:
                click.echo("\n".join(blocks(answers)) if text is not None else line(answers))
            if not streams.has_reader():
                sys.exit(OUTPUT_LOST)


@dataclass(frozen=True)
class Answerer:
    """Predictor with the options `--compare`, `--base` and `--gen-tokens`."""

    predictor: Predictor
    compare: bool
    common: bool
    new_tokens: int

    def answer(self, text: str) -> Answers:
        common = self.predictor.predict_global(text, self.new_tokens) if self.common else None
        model = self.predictor.refresh().model
        first = self.predictor.predict(text, self.new_tokens)
        answers = Answers(text, model, first, common=common)
        if not self.compare:
            return answers
        from learning.evaluation.generation import Sampling

        for _ in range(MAX_SAMPLES):
            sampling = Sampling(secrets.randbelow(2**31))
            other = self.predictor.predict(text, self.new_tokens, sampling)
            answers = Answers(text, model, first, other, common)
            if answers.second is not None:
                break
        return answers


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _converse(location: InboxLocation, answerer: Answerer, task: str) -> None:
    from cli.learn.conversation import Conversation

    with suppress(ImportError):  # line editing, if Python was built with it
        import readline  # noqa: F401
    now = answerer.predictor.refresh()
    learned = " and what was learned here" if now.local else ""
    click.echo(f"{location.client} of {now.model.run}: version {now.model.version}{learned}")
    click.echo("Type a text. Ctrl-D ends.")

    def read_line(prompt: str) -> str:
        return _replace_surrogates(input(prompt))

    Conversation(location, answerer.answer, read_line, task).run()


def _load_predictor(location: InboxLocation) -> Predictor:
    from worker.incremental.serving.predictor import Predictor

    settings = site_settings.load(location.settings_path).settings
    predictor = Predictor(location.state, location.client, cache_dir(), settings.accept)
    predictor.refresh()
    return predictor


def _check_compare(location: InboxLocation, compare: bool) -> None:
    """Refuse `--compare` for a classifier before the model is loaded, which takes seconds."""
    served = location.served
    found = served_run.load_model(location.state, served.run) if served else None
    if compare and found and found[0].objective == "classification":
        raise click.UsageError("--compare requires a model that generates; this one classifies")


def _loading() -> AbstractContextManager[object]:
    console = Console(stderr=True)
    return console.status("loading the model …") if console.is_terminal else nullcontext()


def _replace_surrogates(text: str) -> str:
    """Replace the surrogates by which Python represents bytes that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()
