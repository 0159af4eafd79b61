"""Small federation in a directory of its own, over real servers, and checks of its journal."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from common.protocol.heartbeat import Heartbeat
from common.store.store import connect
from tests.chaos.ledger import check
from tests.support.processes import Command, Commands, commands, eventually, process_state

CONFIG = """\
[run]
name = "small"
[broker]
url = "{broker}"
[store]
url = "{store}"
[model]
name = "offline:gpt2-micro"
max_length = 128
[model.lora]
r = 4
alpha = 8
[data]
rows = 90
clients = {clients}
[[phase]]
versions = {versions}
local_steps = {steps}
batch_size = 4
[schedule]
concurrency = {clients}
buffer_size = {buffer}
lease_s = 4.0
flush_s = 60.0
"""


PLAN = """\
[run]
name = "small"
[model]
name = "{model}"
max_length = {length}
{lora}
[data]
rows = {rows}
clients = {clients}
{phases}
[schedule]
concurrency = {clients}
{schedule}
lease_s = 4.0
flush_s = 60.0
"""
LORA = """\
[model.lora]
r = 4
alpha = 8"""


def phase(objective: str, versions: int, *more: str) -> str:
    head = ("[[phase]]", f'objective = "{objective}"', f"versions = {versions}", "batch_size = 8")
    return "\n".join((*head, *more))


def plan(
    *phases: str,
    model: str = "offline:gpt2-micro",
    length: int = 256,  # the micro model has few pieces: its pairs are long
    lora: str = LORA,
    rows: int = 60,
    clients: int = 2,
    schedule: str = "",
) -> str:
    """Return a configuration of several phases; environment variables name the servers."""
    return PLAN.format(
        model=model,
        length=length,
        lora=lora,
        rows=rows,
        clients=clients,
        phases="\n".join(phases),
        schedule=schedule,
    )


class MakeFederation(Protocol):
    """Function that configures a federation, of the given sizes, on servers that tests share."""

    def __call__(self, **sizes: int) -> Federation: ...


class Federation:
    """One run directory, and the processes that serve it."""

    def __init__(self, directory: Path, place: Commands, store_url: str) -> None:
        self.run = directory / "runs" / "small"
        self.place = place
        self._store_url = store_url
        self.started: list[Command] = []

    # Processes

    def script(self, *args: str, **variables: str) -> Command:
        """Start a command by the console script; the others are forked."""
        return self.place.script(*args, **variables)

    def coordinator(self, *flags: str) -> Command:
        return self._start("coordinator", "--plain", *flags)

    def worker(self, *flags: str, **variables: str) -> Command:
        return self._start("worker", *flags, **variables)

    def _start(self, *args: str, **variables: str) -> Command:
        self.started.append(self.place.fork(*args, **variables))
        return self.started[-1]

    def order(self, *words: str, code: int = 0) -> Command:
        """Run a command that controls the run, to its end."""
        command = self.place.fork(*words)
        assert command.end() == code, command.err
        return command

    def status(self) -> dict[str, Any] | None:
        """Return what `fccl status --json` prints; None where it fails."""
        command = self.place.fork("status", "--json")
        found: dict[str, Any] | None = json.loads(command.out) if command.end() == 0 else None
        return found

    # State of the run

    @property
    def run_id(self) -> str:
        return str(self.rows("SELECT value FROM meta WHERE key = 'run_id'")[0][0])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return rows of the journal, read beside the coordinator; none before it exists."""
        if not (self.run / "run.db").exists():
            return []
        with closing(sqlite3.connect(f"file:{self.run}/run.db?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of `progress.jsonl` or `client_metrics.jsonl`."""
        return [json.loads(line) for line in (self.run / name).read_text().splitlines()]

    def version(self) -> int:
        """Return the newest version in the journal; -1 before there is any."""
        rows = self.rows("SELECT MAX(version) FROM version")
        return int(rows[0][0]) if rows and rows[0][0] is not None else -1

    def reaches(self, version: int) -> None:
        """Wait for a version; on failure show the output of all processes."""
        try:
            eventually(f"version {version}", lambda: self.version() >= version)
        except AssertionError as error:
            output = [f"process {p.pid}, exit {p.code}:\n{p.out}\n{p.err}" for p in self.started]
            raise AssertionError("\n\n".join([str(error), *output])) from None

    def epoch(self) -> int:
        rows = self.rows("SELECT value FROM epoch")
        return int(rows[0][0]) if rows else 0

    def freeze(self, coordinator: Command, *, in_transaction: bool = False) -> None:
        """Stop a coordinator with SIGSTOP, between two transactions or within one.

        One that is stopped within a transaction keeps the journal locked, so nothing can replace
        it until it ends or goes on.
        """

        def freeze_once() -> bool:
            coordinator.signal(signal.SIGSTOP)
            eventually("it is stopped", lambda: process_state(coordinator.pid).startswith("T"))
            if self._journal_is_locked() == in_transaction:
                return True
            coordinator.signal(signal.SIGCONT)
            return False

        eventually("the coordinator is stopped where it should be", freeze_once)

    def _journal_is_locked(self) -> bool:
        with closing(sqlite3.connect(self.run / "run.db", timeout=0)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    def beats(self) -> tuple[Heartbeat, ...]:
        return connect(self._store_url).heartbeats(self.run_id) if self.epoch() else ()

    def training(self) -> Heartbeat:
        """Wait until a worker trains."""

        def find() -> list[Heartbeat]:
            return [beat for beat in self.beats() if beat.state == "training"]

        return eventually("a worker trains", find)[0]


def check_applied_once(federation: Federation) -> None:
    """Check that each accepted update is in exactly one version, and that all files agree.

    Tasks may be open: the run may be stopped.
    """
    report = check(federation.run, finished=False)
    assert (report.problems, report.buffered) == ((), 0)
    assert not list((federation.run / "spool").iterdir())


@contextmanager
def federation(
    directory: Path,
    cache: Path,
    broker: str,
    store: str,
    *,
    clients: int = 3,
    versions: int = 4,
    steps: int = 4,
    buffer: int = 2,
) -> Iterator[Federation]:
    """Yield a configured federation; kill at the end what was started in it."""
    text = CONFIG.format(
        broker=broker, store=store, clients=clients, versions=versions, steps=steps, buffer=buffer
    )
    (directory / "federation.toml").write_text(text)
    with commands(directory, {"FCCL_CACHE": str(cache)}) as place:
        yield _alone(directory, place, store)


@contextmanager
def planned(
    directory: Path, cache: Path, broker: str, store: str, text: str, admin: str = ""
) -> Iterator[Federation]:
    """Yield a federation with a configuration by `plan`; kill at the end what was started in it.

    This process reaches the store at `admin`, where its commands need other credentials.
    """
    (directory / "federation.toml").write_text(text)
    environment = {
        "FCCL_CACHE": str(cache),
        "FCCL_BROKER__URL": broker,
        "FCCL_STORE__URL": store,
    }
    with commands(directory, environment) as place:
        yield _alone(directory, place, admin or store)


def _alone(directory: Path, place: Commands, store: str) -> Federation:
    """Return a federation whose workers cannot find an earlier test's run of the same name."""
    connect(store).execute("DEL", "fccl:run:small")
    return Federation(directory, place, store)
