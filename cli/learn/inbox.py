"""`fccl inbox`: list the items of the inboxes here, with what became of them and why.

Texts are shown on request only, and only here: on the machine of the user they belong to.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.learn.answers import clean
from cli.learn.location import StateLocation, inbox_options, locate_state, no_worker_yet
from common.errors import DataError
from common.text import one_line
from tui.formatting import format_duration
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import StoredItem, name_list
from worker.incremental.report import history

ALL = "all"
DEFAULT_LIMIT = 20
PIPE_COLUMNS = 250  # wide enough for one line per item


@dataclass(frozen=True)
class Contents:
    """Counts of one client's inbox, and the selected items, the newest first."""

    client: str
    counts: dict[str, int]
    items: tuple[StoredItem, ...]


@click.command()
@click.option("--show", metavar="ID|all", help="Show items with their texts; 3,7 names several.")
@click.option(
    "--retry",
    is_flag=False,
    flag_value=ALL,
    metavar="[ID]",
    help="Let rejected items wait again, all or these.",
)
@click.option("--forget", metavar="ID|all", help="Delete items in any state.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation of --forget.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"Number of items listed for each client [default: {DEFAULT_LIMIT}].",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON with all items, unless --limit is given."
)
@inbox_options
def command(
    show: str | None,
    retry: str | None,
    forget: str | None,
    yes: bool,
    limit: int | None,
    as_json: bool,
    client: str | None,
    state: Path | None,
    site: str,
    directory: Path | None,
    config_path: Path | None,
) -> None:
    """Show the items in the inboxes of this machine, and what became of them.

    An item is waiting; learned by the client's own model; settled, once an update with it was
    accepted; rejected, for a reason that is shown; or superseded by a later answer to the same
    input.
    """
    if sum(word is not None for word in (show, retry, forget)) > 1:
        raise click.UsageError("--show, --retry and --forget exclude each other")
    if yes and forget is None:
        raise click.UsageError("--yes requires --forget")
    if as_json and (retry is not None or forget is not None):
        raise click.UsageError("--json can only list items, not --retry or --forget them")
    location = locate_state(config_path, directory, site, state)
    if retry is not None:
        _retry(location, client, retry)
    elif forget is not None:
        _forget(location, client, forget, yes)
    else:
        most = limit or (None if show or as_json else DEFAULT_LIMIT)
        _list(location, client, show, most, as_json)


def _list(
    location: StateLocation, client: str | None, show: str | None, limit: int | None, as_json: bool
) -> None:
    ids = None if show is None else _ids(show)
    names = [_client(location, client)] if client or ids else _clients(location)
    every = [_contents(location, name, ids, limit) for name in names]
    if as_json:
        values = {each.client: _fields(each, texts=show is not None) for each in every}
        click.echo(json.dumps(values, indent=1))
    elif show is not None:
        for each in every:
            for stored in each.items:
                click.echo(_text(each.client, stored))
    else:
        console = Console(highlight=False)
        if console.is_terminal:
            for each in every:
                _print(each, console)
            return
        console.width = PIPE_COLUMNS
        with console.capture() as printed:
            for each in every:
                _print(each, console)
        click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def _retry(location: StateLocation, client: str | None, word: str) -> None:
    ids, name = _ids(word), _client(location, client)
    with _inbox(location, name) as inbox:
        if ids:
            _check(inbox, name, ids, "rejected")
        count = inbox.retry(ids)
    click.echo(f"{name}: {count:,} rejected {_noun(count)} wait{'s' * (count == 1)} again")
    if count and (why := location.why_waiting()):
        click.echo(why)


def _forget(location: StateLocation, client: str | None, word: str, yes: bool) -> None:
    ids, name = _ids(word), _client(location, client)
    with _inbox(location, name) as inbox:
        stored = _check(inbox, name, ids) if ids else inbox.items()
        text = f"{len(stored):,} {_noun(len(stored))} of {name}"
        if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError(f"--forget deletes {text}: confirm it with --yes")
        if not yes and not click.confirm(f"delete {text}?"):
            return
        count = inbox.forget([one.id for one in stored])
    click.echo(
        f"{name}: {count:,} {_noun(count)} deleted; a model keeps what it has learned from them"
    )


def _clients(location: StateLocation) -> tuple[str, ...]:
    names = history.clients(location.state)
    if names:
        return names
    if location.served is None:
        raise no_worker_yet(location.state)
    raise DataError(
        f"no client of {location.state} has an inbox yet",
        "add items with `fccl learn` or `fccl try`",
    )


def _client(location: StateLocation, client: str | None) -> str:
    names = _clients(location)
    if client is None and len(names) == 1:
        return names[0]
    if client is None:
        raise DataError(f"there are inboxes of {name_list(names)}", "choose one with --client")
    if client not in names:
        raise DataError("this client has no inbox here", f"there are inboxes of {name_list(names)}")
    return client


def _ids(word: str) -> tuple[int, ...] | None:
    """Return the ids in an option's value; None for all."""
    if word == ALL:
        return None
    parts = [part.strip() for part in word.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise click.UsageError("name items by their numbers (3 or 3,7), or all")
    return tuple(dict.fromkeys(int(part) for part in parts))


def _inbox(location: StateLocation, client: str) -> Inbox:
    return Inbox(schema.inbox_path(location.state, client), location.limits)


def _check(
    inbox: Inbox, client: str, ids: Sequence[int], state: str | None = None
) -> tuple[StoredItem, ...]:
    """Return these items, newest first; raise `DataError` if one is missing or in another state."""
    known = {stored.id: stored for stored in inbox.items(newest_first=True)}
    for number in ids:
        if number not in known:
            raise DataError(f"{client} has no item {number}", "`fccl inbox` lists them")
        if state is not None and known[number].state != state:
            raise DataError(f"item {number} of {client} is {known[number].state}, not {state}")
    return tuple(stored for number, stored in known.items() if number in ids)


def _contents(
    location: StateLocation, client: str, ids: Sequence[int] | None, limit: int | None
) -> Contents:
    with _inbox(location, client) as inbox:
        items = _check(inbox, client, ids) if ids else inbox.items(limit=limit, newest_first=True)
        return Contents(client, inbox.counts(), items)


def _print(found: Contents, console: Console) -> None:
    counts = ", ".join(f"{count:,} {state}" for state, count in found.counts.items())
    console.print(Text(f"{found.client}: {counts}"))
    if found.items:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("id", "age", "state", "kind", "task", "from", "reason"):
            table.add_column(name, justify="right" if name in ("id", "age") else "left")
        for stored in found.items:
            table.add_row(*(Text(text) for text in _row(stored)))
        console.print(Padding(table, (0, 0, 0, 2)))
    if more := sum(found.counts.values()) - len(found.items):
        console.print(Text(f"  and {more:,} older ones (--limit)"))


def _row(stored: StoredItem) -> tuple[str, ...]:
    item = stored.item
    return (
        str(stored.id),
        _age(stored),
        _state(stored),
        item.kind,
        item.task,
        stored.source,
        one_line(stored.reason),
    )


def _text(client: str, stored: StoredItem) -> str:
    reason = f": {one_line(stored.reason)}" if stored.reason else ""
    head = f"{client} {stored.id}, {_state(stored)}, {_age(stored)} old, {stored.item.task}{reason}"
    fields = [
        f"  {name}: " + clean(value).replace("\n", "\n    ") for name, value in stored.item.texts()
    ]
    return "\n".join([head, *fields])


def _fields(found: Contents, *, texts: bool) -> dict[str, Any]:
    return {
        "counts": found.counts,
        "items": [
            {
                "id": stored.id,
                "at": stored.at,
                "state": stored.state,
                "held_out": stored.held_out,
                "kind": stored.item.kind,
                "task": stored.item.task,
                "source": stored.source,
                "reason": stored.reason,
                **({"item": dict(stored.item.fields)} if texts else {}),
            }
            for stored in found.items
        ],
    }


def _state(stored: StoredItem) -> str:
    """Return the state of an item, and whether it is held out."""
    return stored.state + ", held out" * stored.held_out


def _age(stored: StoredItem) -> str:
    return format_duration(max(0.0, time.time() - stored.at))


def _noun(count: int) -> str:
    return "item" if count == 1 else "items"
