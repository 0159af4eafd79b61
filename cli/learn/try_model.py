"""`fccl try`: ask a client's current model, and correct it.

In a module of another name than the command's, which is a word of Python.
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

from cli.learn.answers import Answers, blocks, fields, line
from cli.learn.location import InboxLocation, inbox_options, locate_inbox, task_option
from common.paths import cache_dir
from worker.incremental.inbox import items
from worker.incremental.serving import served_run

if TYPE_CHECKING:
    from worker.incremental.serving.predictor import Predictor

DRAWS = 3  # until an answer is another one than the likeliest


@click.command("try")
@click.argument("text", required=False)
@click.option("--compare", is_flag=True, help="Two answers to choose from: the likeliest, a drawn.")
@click.option("--base", "common", is_flag=True, help="Beside it, what the global version says.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each text.")
@click.option(
    "--gen-tokens",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Length of an answer.",
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
    """Ask a client's model what it says of TEXT, with all that it has learned by now.

    Without TEXT it goes on asking. In a terminal each answer can be corrected: the correction goes
    into the client's inbox, and the model answers again when it has learned it. From a pipe, each
    line is answered with a line.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text end nothing
    talks = text is None and terminal()
    if talks and as_json:
        raise click.UsageError("--json answers a TEXT, or the lines of a pipe")
    if text is not None and not text.strip():
        raise click.UsageError("TEXT is empty")
    items.check_task(task)
    opened = locate_inbox(config_path, directory, site, state, client)
    _check_compare(opened, compare)
    with _loading():
        asking = Answerer(_respondent(opened), compare, common, gen_tokens)
    if talks:
        _talk(opened, asking, task)
        return
    texts: Iterable[str] = sys.stdin if text is None else [text]
    for each in texts:
        if asked := _plain(each).strip():
            said = asking(asked)
            if as_json:
                click.echo(json.dumps(fields(said, opened.client)))
            else:
                click.echo("\n".join(blocks(said)) if text is not None else line(said))


@dataclass(frozen=True)
class Answerer:
    """What the command line wants to know of each text."""

    respondent: Predictor
    compare: bool
    common: bool
    new_tokens: int

    def __call__(self, text: str) -> Answers:
        """Ask the model, as it is now."""
        common = self.respondent.common(text, self.new_tokens) if self.common else None
        model = self.respondent.follow().model
        mine = self.respondent.reply(text, self.new_tokens)
        said = Answers(text, model, mine, common=common)
        if not self.compare:
            return said
        from learning.evaluation.generation import Sampling

        for _ in range(DRAWS):
            drawn = Sampling(secrets.randbelow(2**31))
            other = self.respondent.reply(text, self.new_tokens, drawn)
            said = Answers(text, model, mine, other, common)
            if said.second is not None:
                break
        return said


def terminal() -> bool:
    """Whether a person sits before it."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _talk(opened: InboxLocation, asking: Answerer, task: str) -> None:
    from cli.learn.conversation import Conversation

    with suppress(ImportError):  # lines can be edited where Python was built with it
        import readline  # noqa: F401
    now = asking.respondent.follow()
    learned = " and what was learned here" if now.local else ""
    click.echo(f"{opened.client} of {now.model.run}: version {now.model.version}{learned}")
    click.echo("Type a text. Ctrl-D ends.")
    Conversation(opened, asking, lambda prompt: _plain(input(prompt)), task).hold()


def _respondent(opened: InboxLocation) -> Predictor:
    from worker.incremental.serving.predictor import Predictor

    found = Predictor(opened.state, opened.client, cache_dir())
    found.follow()
    return found


def _check_compare(opened: InboxLocation, compare: bool) -> None:
    """Before anything is loaded, which takes seconds."""
    found = served_run.model(opened.state, opened.served.run) if opened.served else None
    if compare and found and found[0].objective == "classification":
        raise click.UsageError("--compare is for a model that answers; this one classifies")


def _loading() -> AbstractContextManager[object]:
    console = Console(stderr=True)
    return console.status("loading the model …") if console.is_terminal else nullcontext()


def _plain(text: str) -> str:
    """Without what Python makes of an argument's bytes that are no UTF-8: nothing else takes it."""
    return text.encode("utf-8", "replace").decode()
