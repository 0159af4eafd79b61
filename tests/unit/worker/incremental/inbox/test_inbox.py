"""Items are stored once and durably; what cannot be stored leaves nothing behind."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.config import IncrementalConfig
from common.errors import DataError
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox, InboxFull, ItemStatus, PutResult, RateLimited
from worker.incremental.inbox.items import Item

CONFIG = IncrementalConfig(items_per_minute=1000)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def item(text: str, label: str = "positive", task: str = "feedback") -> Item:
    return Item("cls", {"text": text, "label": label}, task)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return schema.inbox_path(tmp_path, "client_0")


def texts(path: Path, state: str | None = None) -> list[str]:
    with Inbox(path, CONFIG) as inbox:
        return [each.item.fields["text"] for each in inbox.items(state)]


connect = schema.connect


def impatient(path: Path) -> sqlite3.Connection:
    """Connect without waiting for locks."""
    db = connect(path)
    db.execute("PRAGMA busy_timeout = 1")
    return db


def without_room(path: Path) -> sqlite3.Connection:
    """Connect to a file that cannot grow."""
    db = connect(path)
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    return db


def mark(path: Path, text: str, state: str, reason: str = "") -> None:
    """Set the state of an item, as the worker does."""
    with closing(schema.connect(path)) as db:
        query = "UPDATE item SET state = ?, reason = ? WHERE json_extract(fields, '$.text') = ?"
        assert db.execute(query, (state, reason, text)).rowcount == 1


def test_an_item_is_stored_unchanged_with_its_source_and_time(path: Path) -> None:
    clock = Clock()
    original = item("schön\0\u2028 ", task="ward-3")
    with Inbox(path, CONFIG, clock) as inbox:
        assert inbox.put([original], "http") == PutResult(new=1)
        (kept,) = inbox.items("waiting")
        assert (kept.item, kept.source, kept.at, kept.held_out) == (original, "http", 1000.0, False)
        assert inbox.counts() == dict.fromkeys(inbox.counts(), 0) | {"waiting": 1}
    assert [(p.name, p.stat().st_mode & 0o777) for p in path.parent.iterdir()] == [
        ("inbox.db", 0o600)
    ]


def test_the_same_item_is_known_in_any_state(path: Path) -> None:
    with Inbox(path, CONFIG) as inbox:
        assert inbox.put([item("a"), item(" a"), item("b")], "learn") == PutResult(new=2, known=1)
        mark(path, "a", "settled")
        mark(path, "b", "rejected", "why")
        assert inbox.put([item("a"), item("b")], "learn") == PutResult(known=2, rejected=1)
        assert inbox.status(item("b")) == ItemStatus("rejected", "why")
        assert inbox.status(item("c")) is None


def test_the_last_answer_to_an_input_counts(path: Path) -> None:
    with Inbox(path, CONFIG) as inbox:
        inbox.put([item("a"), item("b"), item("c")], "learn")
        mark(path, "b", "learned")
        mark(path, "c", "settled")
        taken = inbox.put([item(text, "negative") for text in "abc"], "learn")
        assert taken == PutResult(new=3, superseded=3)
        assert inbox.put([item("a")], "learn") == PutResult(new=1, superseded=1), "changed back"
        assert inbox.put([item("d"), item("d", "negative")], "learn") == PutResult(2, 0, 1)
        found = [(i.item.fields["text"], i.item.fields["label"]) for i in inbox.items("waiting")]
        assert found == [
            ("b", "negative"), ("c", "negative"), ("a", "positive"), ("d", "negative"),
        ]  # fmt: skip


@given(answers=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=12))
def test_only_the_last_answer_to_each_input_is_waiting(
    answers: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = schema.inbox_path(tmp_path_factory.mktemp("state"), "c")
    with Inbox(path, CONFIG) as inbox:
        for text, label in answers:
            inbox.put([item(text, label)], "learn")
        waiting = {i.item.fields["text"]: i.item.fields["label"] for i in inbox.items("waiting")}
        assert waiting == dict(answers)
        assert inbox.counts()["waiting"] == len(waiting)


def test_the_rate_limit_holds_over_all_connections_of_a_client(path: Path) -> None:
    clock = Clock()
    limits = IncrementalConfig(items_per_minute=3)
    with Inbox(path, limits, clock) as one, Inbox(path, limits, clock) as other:
        one.put([item("a")], "learn")
        clock.now += 20
        other.put([item("b"), item("c")], "http")
        assert one.put([item("a"), item("b")], "learn") == PutResult(known=2), "no new ones"
        with pytest.raises(RateLimited) as caught:
            one.put([item("d")], "learn")
        assert caught.value.wait_s == pytest.approx(40)
        with pytest.raises(RateLimited) as caught:
            one.put([item("d"), item("e")], "learn")
        assert caught.value.wait_s == pytest.approx(60)
        with pytest.raises(InboxFull, match="4 items at once"):
            one.put([item(text) for text in "defg"], "learn")
        clock.now += 40
        assert one.put([item("d")], "learn").new == 1
        clock.now = 500.0  # the clock was wrong, and is set back
        assert one.put([item("e")], "learn").new == 1
    assert texts(path) == ["a", "b", "c", "d", "e"]


def test_the_limit_on_waiting_items_refuses_a_whole_call(path: Path) -> None:
    with Inbox(path, IncrementalConfig(max_waiting=2)) as inbox:
        inbox.put([item("a")], "learn")
        with pytest.raises(InboxFull, match="3 items would be waiting; the limit is 2"):
            inbox.put([item("b"), item("c"), item("a", "negative")], "learn")
        assert [(i.item.fields, i.state) for i in inbox.items()] == [(item("a").fields, "waiting")]
        inbox.put([item("b")], "learn")
        mark(path, "a", "rejected", "why")
        inbox.put([item("c")], "learn")
        with pytest.raises(InboxFull):
            inbox.retry()
        mark(path, "b", "learned")
        assert inbox.retry() == 1
        assert texts(path, "waiting") == ["a", "c"]


def test_rejected_items_can_be_retried_and_any_item_be_deleted_without_a_trace(
    path: Path,
) -> None:
    with Inbox(path, CONFIG) as inbox:
        inbox.put([item(f"secret {n}") for n in range(700)], "learn")
        numbers = [each.id for each in inbox.items()]
        for text in ("secret 1", "secret 2"):
            mark(path, text, "rejected", "why")
        assert inbox.retry([numbers[0], numbers[1]]) == 1
        assert inbox.items("rejected")[0].reason == "why"
        assert inbox.forget(numbers[:600]) == 600
        assert inbox.forget([numbers[0], 10**9]) == 0
        assert inbox.forget() == 100
        assert b"secret" not in b"".join(each.read_bytes() for each in path.parent.iterdir())
        inbox.put([item("new")], "learn")
        assert inbox.items()[0].id > numbers[-1], "a worker may still be learning that one"


def test_concurrent_writers_store_every_item_once(path: Path) -> None:
    both = [item(f"text {n}") for n in range(20)]

    def write(number: int) -> int:
        with Inbox(path, CONFIG) as inbox:
            own = [item(f"own {number} {n}") for n in range(5)]
            return sum(inbox.put([each], "learn").new for each in both + own)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 40
    assert len(texts(path)) == len(set(texts(path))) == 40


WRITER = """
import sys
from pathlib import Path
from common.config.config import IncrementalConfig
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
inbox = Inbox(Path(sys.argv[1]), IncrementalConfig(items_per_minute=10**6, max_waiting=10**6))
n = 0
while True:
    inbox.put([Item("cls", {"text": f"text {n}", "label": "x"})], "learn")
    print(n, flush=True)
    n += 1
"""


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(50)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    found = texts(path)
    assert found[: len(acknowledged)] == [f"text {n}" for n in acknowledged]
    assert len(found) <= len(acknowledged) + 1, "at most the one that was being written"
    with Inbox(path, CONFIG) as inbox:
        assert inbox.put([item("text 0", "x"), item("goes on")], "learn") == PutResult(1, 1)


FILLER = """
import resource, sys
from pathlib import Path
from common.config.config import IncrementalConfig
from common.errors import DataError
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
inbox = Inbox(Path(sys.argv[1]), IncrementalConfig())
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
n = 0
try:
    while n < 500:
        texts = (f"{n} {'x' * 5000}", f"and {n}")
        inbox.put([Item("cls", {"text": text, "label": "x"}) for text in texts], "learn")
        n += 1
except DataError as error:
    print(n, inbox.counts()["waiting"], type(error).__name__, error)
"""


def test_a_full_disk_is_reported_and_nothing_is_stored_in_part(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", FILLER, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    taken, waiting, name, says = output.split(maxsplit=3)
    assert int(waiting) == 2 * int(taken) > 0
    assert len(texts(path)) == int(waiting)
    assert name == "DiskFull" and "nothing was stored" in says
    assert "xxx" not in output
    with Inbox(path, CONFIG) as inbox:
        before = inbox.counts()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "connect", without_room)
        with (
            Inbox(path, CONFIG) as inbox,
            pytest.raises(schema.DiskFull, match="the disk is full, nothing was stored"),
        ):
            inbox.put([item("small"), item("x" * 20_000)], "learn")
    with Inbox(path, CONFIG) as inbox:
        assert inbox.counts() == before
        assert inbox.put([item("small")], "learn").new == 1


def test_a_locked_or_damaged_file_is_reported(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "connect", impatient)
    with Inbox(path, CONFIG) as inbox, closing(schema.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(schema.InboxBusy, match="locked by another process, nothing was stored"):
            inbox.put([item("a")], "learn")
        other.execute("ROLLBACK")
        assert inbox.put([item("a")], "learn").new == 1
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="cannot be used"):
        Inbox(path, CONFIG)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be used"):
        Inbox(tmp_path / "file" / "inbox.db", CONFIG)
    newer = schema.inbox_path(tmp_path, "client_1")
    with closing(schema.connect(newer)) as db:
        db.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    with pytest.raises(DataError, match="a newer fccl"):
        Inbox(newer, CONFIG)
