"""`fccl learn`: tell a client's model something, from a terminal, a file or a pipe."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console

from cli.exit_codes import INTERRUPTED
from cli.learn.ingest import CHUNK, Ingester, LineCounts, LineResult, line_result, read_lines
from cli.learn.location import InboxLocation, inbox_options, locate_inbox, task_option
from common.errors import DataError
from worker.incremental.inbox import item_status, items
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.item_parser import ItemParser, max_json_bytes

PIPE = "-"
FORMS: tuple[tuple[str, ...], ...] = (
    ("instruction", "response"),
    ("prompt", "chosen", "rejected"),
)
WAYS = (
    "give a TEXT with its --label; --instruction and --response; --prompt, --chosen and"
    " --rejected; a FILE of JSON lines; or - for a pipe of them"
)


@click.command()
@click.argument("what", metavar="[TEXT|FILE|-]", required=False)
@click.option("--label", help="The class of TEXT.")
@click.option("--instruction", help="What is asked of the model; with --response.")
@click.option("--input", "context", help="What the instruction is about, if anything.")
@click.option("--response", help="The right answer.")
@click.option("--prompt", help="What is asked of the model; with --chosen and --rejected.")
@click.option("--chosen", help="The better answer.")
@click.option("--rejected", help="The worse answer.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each item.")
@task_option
@inbox_options
def command(
    what: str | None,
    label: str | None,
    instruction: str | None,
    context: str | None,
    response: str | None,
    prompt: str | None,
    chosen: str | None,
    rejected: str | None,
    as_json: bool,
    task: str,
    client: str | None,
    state: Path | None,
    site: str,
    directory: Path | None,
    config_path: Path | None,
) -> None:
    """Put something into a client's inbox, from which its worker learns it.

    A TEXT with its --label; an --instruction with its --response; a --prompt with a better and a
    worse answer; a FILE of JSON lines with such fields, or - to read them from a pipe as they come,
    each told when it is on the disk. Where the inbox is full, a file or a pipe waits.

    Exit code 0: all of it is in the inbox; 3: something was refused.
    """
    given = {
        "instruction": instruction,
        "input": context,
        "response": response,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
    }
    record = _record(what, label, {name: text for name, text in given.items() if text is not None})
    items.check_task(task)
    opened = locate_inbox(config_path, directory, site, state, client)
    if opened.served is None:
        raise DataError(
            f"no worker has served a client from {opened.state} yet",
            "start `fccl worker` (or `fccl demo`), or name its --state",
        )
    intake = ItemParser(opened.limits, opened.served, task)
    if record is not None:
        _one(opened, intake, record, as_json)
    else:
        assert what is not None
        sys.exit(_many(opened, intake, what, as_json))


def _record(
    what: str | None, label: str | None, given: Mapping[str, str]
) -> Mapping[str, str] | None:
    """The item of the command line; None where a file or a pipe has them."""
    named = [form for form in FORMS if not given.keys().isdisjoint(form)]
    if "input" in given and FORMS[0] not in named:
        raise click.UsageError("--input goes with an --instruction")
    if len(named) + (what is not None or label is not None) != 1:
        raise click.UsageError(WAYS if not named else f"one item at a time: {WAYS}")
    if named:
        if missing := [name for name in named[0] if name not in given]:
            raise click.UsageError("missing: " + ", ".join(f"--{name}" for name in missing))
        return given
    if label is None:
        return None
    if what is None:
        raise click.UsageError("--label goes with a TEXT")
    if what == PIPE or _is_file(what):
        name = "a pipe" if what == PIPE else what
        raise click.UsageError(f"--label goes with a TEXT; the lines of {name} have their own")
    return {"text": what, "label": label}


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # longer than a name can be
        return False


def _one(
    opened: InboxLocation, intake: ItemParser, record: Mapping[str, str], as_json: bool
) -> None:
    item = intake.item(record)
    with Inbox(opened.path, opened.limits) as inbox:
        taken = inbox.put([item], "learn")
    known = None if taken.new else item_status.look(opened.path, item.key)
    if as_json:
        click.echo(_json(line_result(taken, 1), opened.client))
        return
    if known is not None:
        reason = f": {known.reason}; `fccl inbox --retry` lets it wait again" * bool(known.reason)
        click.echo(f"duplicate: the inbox of {opened.client} has it already, {known.state}{reason}")
        return
    click.echo(f"accepted: it is in the inbox of {opened.client}")
    if taken.superseded:
        click.echo("it takes the place of what was said before of the same input")
    if why := opened.why_waiting():
        click.echo(why)


def _many(opened: InboxLocation, intake: ItemParser, what: str, as_json: bool) -> int:
    with _stream(what) as source, Inbox(opened.path, opened.limits) as inbox:
        voice = _Voice(opened, as_json, each=source.live)
        feeder = Ingester(inbox, intake, voice.told, voice.warned, lambda s: _wait(feeder.line, s))
        most = 1 if source.live else CHUNK
        chunk = min(most, opened.limits.items_per_minute, opened.limits.max_waiting)
        try:
            with _ended_by_signals():
                feeder.feed(read_lines(source.file, max_json_bytes(opened.limits)), chunk)
        except DataError as error:
            voice.warned(f"stopped at line {feeder.line}: {error}")
            voice.summed(feeder.tally)
            return error.exit_code
        except KeyboardInterrupt:
            after = f": line {feeder.line} and what follows was not taken" * bool(feeder.line)
            voice.warned(f"interrupted{after}")
            voice.summed(feeder.tally)
            return INTERRUPTED
        except BrokenPipeError:  # click ends the process, with exit code 1
            voice.warned(f"nobody reads what is told; {opened.client}: {feeder.tally.text()}")
            raise
        except OSError as error:
            voice.summed(feeder.tally)
            raise DataError(f"{what} cannot be read any more: {error.strerror}") from None
    if not source.live and feeder.tally == LineCounts():
        raise DataError(f"{what} has no lines", "a JSON object on each")
    voice.summed(feeder.tally)
    return DataError.exit_code if feeder.tally.refused else 0


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, with the summary."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(line: int, seconds: float) -> None:
    with Console(stderr=True).status(f"line {line} waits for room …"):
        time.sleep(seconds)


@dataclass(frozen=True)
class _Source:
    """Lines: of a file that is there, or live, as they come."""

    file: BinaryIO
    live: bool


@contextmanager
def _stream(what: str) -> Iterator[_Source]:
    if what == PIPE:
        yield _Source(sys.stdin.buffer, live=True)
        return
    with _open(what) as file:
        yield _Source(file, live=not stat.S_ISREG(os.fstat(file.fileno()).st_mode))


def _open(what: str) -> BinaryIO:
    try:
        return Path(what).open("rb")
    except FileNotFoundError:
        raise DataError(
            f"there is no file {_short(what)}", "a TEXT needs its --label; - reads a pipe"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{_short(what)} cannot be read: {reason}", WAYS) from None


def _short(what: str) -> str:
    """A name for a message; what is long is rather a text."""
    return repr(what if len(what) <= 80 else what[:77] + "…")


@dataclass(frozen=True)
class _Voice:
    """Says what becomes of lines: each, if they come one by one, else those that were refused."""

    opened: InboxLocation
    as_json: bool
    each: bool

    def told(self, found: LineResult) -> None:
        if self.as_json:
            click.echo(_json(found, self.opened.client))
            return
        reason = f": {found.reason}" if found.reason else ""
        if found.state == "refused":
            click.echo(f"line {found.line}: {found.reason}", err=True)
        elif self.each:
            click.echo(f"line {found.line}: {found.state}{reason}")

    def warned(self, text: str) -> None:
        click.echo(f"fccl learn: {text}", err=True)

    def summed(self, tally: LineCounts) -> None:
        why = self.opened.why_waiting() if tally.accepted else ""
        text = f"{self.opened.client}: {tally.text()}" + (f"\n{why}" if why else "")
        click.echo(text, err=self.as_json)


def _json(found: LineResult, client: str) -> str:
    reason = {"reason": found.reason} if found.reason else {}
    return json.dumps({"line": found.line, "client": client, "state": found.state, **reason})
