"""A journal that another process holds: who that is, and when it can be taken over."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.errors import FencedError, RunError
from common.run_directory.journal_reader import open_journal, translated_errors
from coordinator.storage import journal as journal_module
from coordinator.storage.journal import Journal
from coordinator.storage.journal_lock import JournalLockedError
from tests.support.coordinator_records import version_summary
from tests.support.processes import eventually, process_state

HOLD = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "db.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def _short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "TRY_S", 0.05)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.db"
    journal = Journal.create(path, {"run_id": "r1"})
    journal.put_version(version_summary(0))
    journal.close()
    return path


@pytest.fixture
def frozen(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that was stopped within a transaction."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        eventually("it is stopped", lambda: process_state(process.pid).startswith("T"))
        yield process
        process.kill()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system tells no lock's holder")
def test_a_frozen_holder_is_named_and_replaced_once_it_is_killed(
    path: Path, frozen: subprocess.Popen[str]
) -> None:
    journal, errors = Journal.open(path), list[JournalLockedError]()

    def kill_the_second_time(error: JournalLockedError) -> bool:
        errors.append(error)
        if len(errors) == 2:
            frozen.kill()
        return True

    assert journal.take_over(kill_the_second_time) == 1
    assert f"process {frozen.pid}, which is stopped" in errors[0].what
    assert f"kill -KILL {frozen.pid}" in errors[0].remedy
    assert journal.versions() == [version_summary(0)]
    journal.close()


def test_readers_see_the_run_while_a_frozen_process_holds_it(
    path: Path, frozen: subprocess.Popen[str]
) -> None:
    journal = Journal.open(path)
    assert journal.versions() == [version_summary(0)]
    journal.close()
    with open_journal(path) as db:
        assert db.execute("SELECT COUNT(*) FROM version").fetchone() == (1,)


def test_a_reader_that_is_kept_out_says_so(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        uri = f"{path.as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=0)) as db,
            pytest.raises(RunError, match="is locked by another process"),
            translated_errors(path),
        ):
            db.execute("SELECT COUNT(*) FROM version").fetchone()


def test_a_takeover_that_is_given_up_changes_nothing(path: Path) -> None:
    holder, journal = Journal.open(path), Journal.open(path)
    holder.take_over()
    with holder.fenced(), pytest.raises(RunError, match=r"is locked by .*; .*start again"):
        journal.take_over()
    holder.check_epoch()
    assert journal.epoch == 0
    holder.close()
    journal.close()


def test_a_replaced_coordinator_learns_who_has_taken_over(path: Path) -> None:
    old, new = Journal.open(path), Journal.open(path)
    old.take_over()
    new.take_over()
    with pytest.raises(FencedError, match=r"epoch 2: the coordinator with process id \d+ on"):
        old.check_epoch()
    old.close()
    new.close()
