"""`fccl learn`: put items into a client's inbox, from the command line, a file or a pipe."""

from __future__ import annotations

import json
import os
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

from cli import streams
from cli.exit_codes import INTERRUPTED, OUTPUT_LOST
from cli.learn.ingest import CHUNK, Ingester, LineCounts, read_lines
from cli.learn.location import (
    InboxLocation,
    inbox_options,
    locate_inbox,
    no_worker_yet,
    task_option,
)
from common.errors import DataError
from worker.incremental.inbox import items
from worker.incremental.inbox.inbox import Inbox, ItemResult, item_results
from worker.incremental.inbox.item_parser import ItemParser, max_json_bytes

PIPE = "-"
FORMS: tuple[tuple[str, ...], ...] = (
    ("instruction", "response"),
    ("prompt", "chosen", "rejected"),
)
RATED = {"prompt", "response"}
USAGE = (
    "give a TEXT with --label; --instruction and --response; --prompt, --chosen and --rejected;"
    " --prompt and --response with --good or --bad; a FILE of JSON lines; or - to read such lines"
    " from a pipe"
)


@click.command()
@click.argument("what", metavar="[TEXT|FILE|-]", required=False)
@click.option("--label", help="Class of TEXT.")
@click.option("--instruction", help="Instruction to the model; with --response.")
@click.option("--input", "context", help="Text that the instruction refers to, if any.")
@click.option("--response", help="Right answer to the instruction, or rated answer to the prompt.")
@click.option("--prompt", help="Prompt to the model; with two answers, or with a rated one.")
@click.option("--chosen", help="Better answer to the prompt.")
@click.option("--rejected", help="Worse answer to the prompt.")
@click.option("--good", is_flag=True, help="Rate the response as good: thumbs up.")
@click.option("--bad", is_flag=True, help="Rate the response as bad: thumbs down.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each item.")
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
    good: bool,
    bad: bool,
    as_json: bool,
    task: str,
    client: str | None,
    state: Path | None,
    site: str,
    directory: Path | None,
    config_path: Path | None,
) -> None:
    """Put items into a client's inbox, from which its worker learns them.

    An item is a TEXT with its --label, an --instruction with its --response, a --prompt with a
    better and a worse answer, or a --prompt with a --response that is rated --good or --bad. A FILE
    has one item per line, a JSON object with such fields or with the messages of a conversation; -
    reads the same from a pipe, and reports each item when it is on the disk. When the inbox is
    full, a file or a pipe waits for room.

    Exit code 0: everything is in the inbox; 3: something was refused.
    """
    given = {
        "instruction": instruction,
        "input": context,
        "response": response,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
    }
    texts = {name: text for name, text in given.items() if text is not None}
    record: Mapping[str, object] | None
    if good or bad:
        record = _rating(texts, good, bad, alone=what is None and label is None)
    else:
        record = _record(what, label, texts)
    items.check_task(task)
    location = locate_inbox(config_path, directory, site, state, client)
    if location.served is None:
        raise no_worker_yet(location.state)
    parser = ItemParser(location.limits, location.served, task)
    if record is not None:
        _learn_one(location, parser, record, as_json)
    else:
        assert what is not None
        sys.exit(_learn_many(location, parser, what, as_json))


def _record(
    what: str | None, label: str | None, given: Mapping[str, str]
) -> Mapping[str, str] | None:
    """Return the item given by options; None if a file or a pipe has the items."""
    if given.keys() == RATED:
        raise click.UsageError(
            "add --good or --bad to rate the response; or give --instruction instead of --prompt if"
            " the response is right"
        )
    named = [form for form in FORMS if not given.keys().isdisjoint(form)]
    if "input" in given and FORMS[0] not in named:
        raise click.UsageError("--input requires --instruction")
    if len(named) + (what is not None or label is not None) != 1:
        raise click.UsageError(USAGE if not named else f"give one item at a time: {USAGE}")
    if named:
        if missing := [name for name in named[0] if name not in given]:
            raise click.UsageError("missing: " + ", ".join(f"--{name}" for name in missing))
        return given
    if label is None:
        return None
    if what is None:
        raise click.UsageError("--label requires a TEXT")
    if what == PIPE or _is_file(what):
        name = "a pipe" if what == PIPE else what
        raise click.UsageError(
            f"--label requires a TEXT; the lines of {name} have labels of their own"
        )
    return {"text": what, "label": label}


def _rating(
    given: Mapping[str, str], good: bool, bad: bool, *, alone: bool
) -> Mapping[str, object]:
    """Return the rating given by options, `alone` unless there is a TEXT or a label, too."""
    if good and bad:
        raise click.UsageError("--good and --bad exclude each other")
    if not alone or given.keys() != RATED:
        raise click.UsageError(
            f"{'--good' if good else '--bad'} requires --prompt and --response, and no other text"
        )
    return {**given, "label": good}


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # longer than a file name can be
        return False


def _learn_one(
    location: InboxLocation, parser: ItemParser, record: Mapping[str, object], as_json: bool
) -> None:
    item = parser.parse(record)
    with Inbox(location.path, location.limits) as inbox:
        (stored,) = inbox.put_each([item], "learn")
        known = None if stored.new else inbox.status(item)
    if as_json:
        (result,) = item_results([item], [stored])
        click.echo(_to_json(1, result, location.client))
        return
    if known is not None:
        reason = f": {known.reason}; `fccl inbox --retry` lets it wait again" * bool(known.reason)
        click.echo(
            f"duplicate: it is in the inbox of {location.client} already, {known.state}{reason}"
        )
        return
    click.echo(f"accepted: it is in the inbox of {location.client}")
    if stored.superseded:
        click.echo("it replaces an earlier answer to the same input")
    if why := location.why_waiting():
        click.echo(why)


def _learn_many(location: InboxLocation, parser: ItemParser, what: str, as_json: bool) -> int:
    with _open_source(what) as source, Inbox(location.path, location.limits) as inbox:
        printer = _Printer(location, as_json, every_line=source.live)
        ingester = Ingester(
            inbox, parser, printer.result, printer.warn, lambda s: _wait(ingester.line, s)
        )
        most = 1 if source.live else CHUNK
        chunk = min(most, location.limits.items_per_minute, location.limits.max_waiting)
        try:
            ingester.ingest(read_lines(source.file, max_json_bytes(location.limits)), chunk)
        except DataError as error:
            printer.warn(f"stopped at line {ingester.line}: {error}")
            printer.totals(ingester.counts)
            return error.exit_code
        except KeyboardInterrupt:
            after = f": line {ingester.line} and what follows was not stored" * bool(ingester.line)
            printer.warn(f"interrupted{after}")
            printer.totals(ingester.counts)
            return INTERRUPTED
        except _ReaderGone:
            counts = ingester.counts.text()
            printer.warn(f"standard output was closed; {location.client}: {counts}")
            return OUTPUT_LOST
        except OSError as error:
            printer.totals(ingester.counts)
            raise DataError(f"{what} can no longer be read: {error.strerror}") from None
    if not source.live and ingester.counts == LineCounts():
        raise DataError(f"{what} has no lines", "write a JSON object on each line")
    printer.totals(ingester.counts)
    return DataError.exit_code if ingester.counts.refused else 0


def _wait(line: int, seconds: float) -> None:
    with Console(stderr=True).status(f"line {line} is waiting for room …"):
        time.sleep(seconds)


@dataclass(frozen=True)
class _Source:
    """Source of lines: a regular file, or a live one whose lines arrive over time."""

    file: BinaryIO
    live: bool


@contextmanager
def _open_source(what: str) -> Iterator[_Source]:
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
            f"there is no file {_short(what)}", "a TEXT requires --label; - reads from a pipe"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{_short(what)} cannot be read: {reason}", USAGE) from None


def _short(what: str) -> str:
    """Return a name for a message, shortened: it may be a text rather than a file name."""
    return repr(what if len(what) <= 80 else what[:77] + "…")


class _ReaderGone(Exception):
    """The program that waits for the results of a live source reads no more."""


@dataclass(frozen=True)
class _Printer:
    """Printer of the results of lines: all of a live source, else only the refusals."""

    location: InboxLocation
    as_json: bool
    every_line: bool

    def result(self, line: int, result: ItemResult) -> None:
        reason = f": {result.reason}" if result.reason else ""
        if self.as_json:
            click.echo(_to_json(line, result, self.location.client))
        elif result.state == "refused":
            click.echo(f"line {line}: {result.reason}", err=True)
        elif self.every_line:
            click.echo(f"line {line}: {result.state}{reason}")
        if self.every_line and not streams.has_reader():
            raise _ReaderGone

    def warn(self, text: str) -> None:
        click.echo(f"fccl learn: {text}", err=True)

    def totals(self, counts: LineCounts) -> None:
        why = self.location.why_waiting() if counts.accepted else ""
        text = f"{self.location.client}: {counts.text()}" + (f"\n{why}" if why else "")
        click.echo(text, err=self.as_json)


def _to_json(line: int, result: ItemResult, client: str) -> str:
    reason = {"reason": result.reason} if result.reason else {}
    return json.dumps({"line": line, "client": client, "state": result.state, **reason})
