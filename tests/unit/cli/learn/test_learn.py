"""`fccl learn` puts items into the inbox, or says in one line why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cli.learn import ingest
from cli.learn.ingest import Ingester, LineCounts, read_lines
from cli.main import fccl
from common.config.config import IncrementalConfig
from common.errors import DataError, FcclError
from common.protocol.fields import RowKind
from learning.data.row_types import Conversation, PreferencePair, RatedAnswer
from tests.support.conversations import dialogue, turns
from tests.support.paths import ROOT
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox, ItemResult
from worker.incremental.inbox.item_parser import ItemParser, max_json_bytes, parse_json
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun

SECRET = "my neighbour's secret"
LABELS = ("negative", "positive")
CLASSES = ServedRun(
    run="run-1", name="run", clients=("client_0",), kinds=("cls",), labels=LABELS
)  # fmt: skip
WRITES = CLASSES.model_copy(update={"kinds": ("sft", "va", "kto"), "labels": ()})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State directory of a worker that has served one client with a classifier."""
    monkeypatch.chdir(tmp_path)
    served_run.write(tmp_path / "state", CLASSES)
    return tmp_path / "state"


def learn(state: Path, *words: str, typed: bytes | None = None) -> Result:
    arguments = ["learn", *words, "--state", str(state)]
    return CliRunner().invoke(fccl, arguments, input=typed, catch_exceptions=False)


def refusal(state: Path, *words: str) -> str:
    """Return the one line that the console script would print."""
    with pytest.raises((FcclError, click.UsageError)) as raised:
        fccl.main(["learn", *words, "--state", str(state)], standalone_mode=False)
    message = str(raised.value)
    assert "\n" not in message
    return message


def items(state: Path, client: str = "client_0") -> list[tuple[str, tuple[str, ...], str, str]]:
    with Inbox(schema.inbox_path(state, client), IncrementalConfig()) as inbox:
        return [
            (s.item.kind, tuple(s.item.fields.values()), s.item.task, s.source)
            for s in inbox.items()
        ]


def rows(*texts: str, label: str = "positive") -> bytes:
    return b"".join(json.dumps({"text": t, "label": label}).encode() + b"\n" for t in texts)


def test_a_text_with_its_label_is_stored_once(state: Path) -> None:
    first = learn(state, "a dull plot", "--label", "negative", "--task", "films")
    assert first.output.splitlines() == [
        "accepted: it is in the inbox of client_0",
        "no worker is running here; the next one learns it (`fccl worker`)",
    ]
    assert items(state) == [("cls", ("a dull plot", "negative"), "films", "learn")]
    again = learn(state, " a dull plot ", "--label", "negative")
    assert again.output == "duplicate: it is in the inbox of client_0 already, waiting\n"
    turned = learn(state, "a dull plot", "--label", "positive")
    assert "it replaces an earlier answer" in turned.output


@pytest.mark.parametrize(
    ("words", "kind", "fields"),
    [
        (("--instruction", "Add 1.", "--response", "2"), "sft", ("Add 1.", "", "2")),
        (("--instruction", "Add.", "--input", "1", "--response", "2"), "sft", ("Add.", "1", "2")),
        (("--prompt", "a", "--chosen", "b", "--rejected", "c"), "va", ("a", "b", "c")),
        (("--prompt", "a", "--response", "b", "--good"), "kto", ("a", "b", "good")),
        (("--bad", "--prompt", "a", "--response", "b"), "kto", ("a", "b", "bad")),
    ],
)  # fmt: skip
def test_options_make_an_instruction_a_preference_pair_or_a_rating(
    state: Path, words: tuple[str, ...], kind: RowKind, fields: tuple[str, ...]
) -> None:
    served_run.write(state, WRITES)
    assert learn(state, *words).output.startswith("accepted")
    assert items(state) == [(kind, fields, "feedback", "learn")]


def test_a_file_may_hold_conversations_and_pairs_of_several_turns(state: Path) -> None:
    served_run.write(state, WRITES)
    records = [
        {"messages": dialogue("Hi", "Hello.", "Add 1.", "2")},
        {"prompt": dialogue("Hi", "Hello.", "Add 1."), "chosen": "2", "rejected": "3"},
        {"messages": dialogue("Hi", "Hello.", SECRET)},
        {"messages": dialogue("Hi", "Hello.", "Add 1.", "2"), "label": True},
    ]
    Path("talks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    found = learn(state, "talks.jsonl")
    assert found.exit_code == DataError.exit_code
    assert "line 3: the item would be learned only in part: turns after the last" in found.output
    assert SECRET not in found.output
    with Inbox(schema.inbox_path(state, "client_0"), IncrementalConfig()) as inbox:
        assert [stored.item.row for stored in inbox.items()] == [
            Conversation(turns("Hi", "Hello.", "Add 1.", "2")),
            PreferencePair(turns("Hi", "Hello.", "Add 1."), "2", "3"),
            RatedAnswer(turns("Hi", "Hello.", "Add 1."), "2", True),
        ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give a TEXT with --label"),
        (("--label", "positive"), "--label requires a TEXT"),
        (("-", "--label", "positive"), "the lines of a pipe have labels of their own"),
        (("there.jsonl", "--label", "positive"), "lines of there.jsonl have labels of their own"),
        (("--instruction", SECRET), "missing: --response"),
        (("--chosen", "a"), "missing: --prompt, --rejected"),
        (("--input", SECRET), "--input requires --instruction"),
        (("x", "--label", "positive", "--response", "y"), "one item at a time"),
        (("--prompt", "x", "--response", "y"), "add --good or --bad to rate the response"),
        (("--prompt", "x", "--response", "y", "--good", "--bad"), "exclude each other"),
        (("--prompt", "x", "--good"), "--good requires --prompt and --response, and no other"),
        (("--instruction", "x", "--response", "y", "--bad"), "--bad requires --prompt and --resp"),
        (("--prompt", "x", "--chosen", "y", "--rejected", "z", "--bad"), "--bad requires --prompt"),
        (("x", "--label", "positive", "--good"), "--good requires --prompt and --response"),
        (("there.jsonl", "--good"), "--good requires --prompt and --response"),
        (("--prompt", SECRET, "--response", "y", "--good"), "which this run does not learn; give"),
        (("a text", "--task", "two words"), "the task is not a valid name"),
        (("", "--label", "positive"), "text is empty"),
        ((SECRET, "--label", SECRET), "not a class of this run; use one of negative, positive"),
        (("x" * 20_001, "--label", "positive"), "20009 characters, more than 20000; shorten it"),
        (("x" * 40_000, "--label", "positive"), "40000 characters, more than 32768"),
        (("\udcff", "--label", "positive"), "not valid UTF-8"),
        ((SECRET,), "there is no file"),
        (("x" * 500,), "cannot be read: File name too long"),
        ((".",), "cannot be read: Is a directory"),
        (("empty.jsonl",), "empty.jsonl has no lines"),
        (("--instruction", SECRET, "--response", SECRET), "which this run does not learn; give"),
        (("x", "--label", "positive", "--client", "client_9"), "it serves client_0"),
    ],
)  # fmt: skip
def test_an_invalid_item_is_refused_in_one_line_and_nothing_is_stored(
    state: Path, words: tuple[str, ...], says: str
) -> None:
    Path("there.jsonl").write_bytes(rows("a"))
    Path("empty.jsonl").write_bytes(b"\n \n")
    assert says in refusal(state, *words)
    assert items(state) == []


def test_the_later_rating_of_an_answer_replaces_the_earlier(state: Path) -> None:
    served_run.write(state, WRITES)
    words = ("--prompt", "a", "--response", "b")
    assert learn(state, *words, "--good").output.startswith("accepted")
    assert learn(state, *words, "--good").output.startswith("duplicate")
    turned = learn(state, *words, "--bad")
    assert "it replaces an earlier answer to the same input" in turned.output
    with Inbox(schema.inbox_path(state, "client_0"), IncrementalConfig()) as inbox:
        states = [(stored.item.fields["label"], stored.state) for stored in inbox.items()]
    assert states == [("good", "superseded"), ("bad", "waiting")]


def test_nothing_is_stored_where_no_worker_has_run(state: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for words in ((), ("--client", "client_0")):
        message = refusal(nowhere, "x", "--label", "positive", *words)
        assert "no worker has served a client from" in message and "fccl demo" in message
    assert not nowhere.exists()
    served_run.write(state, CLASSES.model_copy(update={"clients": ("client_0", "client_1")}))
    assert "serves client_0, client_1; choose one with --client" in refusal(
        state, "x", "--label", "x"
    )
    assert learn(state, "x", "--label", "positive", "--client", "client_1").exit_code == 0
    assert len(items(state, "client_1")) == 1


def test_a_full_disk_a_rate_limit_and_a_locked_file_are_reported(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = schema.inbox_path(state, "client_0")
    Path("federation.toml").write_text("[incremental]\nitems_per_minute = 2\n")
    assert learn(state, "-", typed=rows("a", "b")).exit_code == 0
    assert "in a minute" in refusal(state, "c", "--label", "positive")
    connect = schema.connect

    def busy(path: Path) -> schema.sqlite3.Connection:
        db = connect(path)
        db.execute("PRAGMA busy_timeout = 1")
        return db

    monkeypatch.setattr(schema, "connect", busy)
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "locked by another process" in refusal(state, "c", "--label", "positive")
        assert "stopped at line 1" in learn(state, "-", typed=rows("c")).output
        other.execute("ROLLBACK")

    def full(path: Path) -> schema.sqlite3.Connection:
        db = connect(path)
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        return db

    Path("federation.toml").write_text("[incremental]\nitems_per_minute = 100\n")
    monkeypatch.setattr(schema, "connect", full)
    assert "the disk is full" in refusal(state, "c" * 19_000, "--label", "positive")
    found = learn(state, "-", typed=rows("small", "c" * 19_000, "d"))
    assert found.exit_code == 3
    assert "stopped at line 2: " in found.stderr and "the disk is full" in found.stderr
    assert "client_0: 1 accepted, 0 duplicates, 0 refused" in found.stdout
    assert [fields[0] for _, fields, _, _ in items(state)] == ["a", "b", "small"]


LINES = b"".join(
    [
        b'\xef\xbb\xbf{"text": "a", "label": "positive"}\r\n',
        b"\n",
        b'{"text": "b", "label": "positive", "task": "films"}\n',
        b'{"text": "' + SECRET.encode() + b"\n",
        b'{"text": "a", "label": "positive"}\n',
        b"[" * 100_000 + b"\n",
        b'["' + SECRET.encode() + b'"]\n',
        b'{"text": "\\ud800", "label": "positive"}\n',
        b"\xff\xfe\n",
        b'{"text": "c", "label": 1e999}\n',
        b'{"text": "c", "label": ' + b"1" * 5000 + b"}\n",
        b'{"text": "c", "label": "positive", "task": 3}\n',
        b"x" * 400_000 + b"\n",
        b'{"text": "c", "label": "negative"}',
    ]
)
REASONS = [
    "line 4: not valid JSON (Unterminated string starting at: column 10)",
    "line 6: JSON is nested too deeply",
    "line 7: not a JSON object",
    "line 8: text is not valid UTF-8 text",
    "line 9: not UTF-8",
    "line 10: label is not text",
    "line 11: not valid JSON (a number is too long)",
    "line 12: the task is not a valid name",
    "line 13: longer than any item may be; see incremental.max_chars",
]


@pytest.mark.parametrize("pipe", [False, True])
def test_invalid_lines_are_reported_and_skipped_and_the_others_are_stored(
    state: Path, pipe: bool
) -> None:
    Path("feedback.jsonl").write_bytes(LINES)
    found = learn(state, "-", typed=LINES) if pipe else learn(state, "feedback.jsonl")
    assert found.exit_code == 3
    assert found.stderr.splitlines() == REASONS
    printed = found.stdout.splitlines()
    if pipe:
        acknowledged = ["line 1: accepted", "line 3: accepted", "line 5: duplicate"]
        assert printed[:4] == [*acknowledged, "line 14: accepted"]
    assert printed[4 * pipe] == "client_0: 3 accepted, 1 duplicate, 9 refused"
    assert [(fields[0], task) for _, fields, task, _ in items(state)] == [
        ("a", "feedback"), ("b", "films"), ("c", "feedback"),
    ]  # fmt: skip


def test_json_output_has_an_object_for_each_item(state: Path) -> None:
    with Inbox(schema.inbox_path(state, "client_0"), IncrementalConfig()):
        pass
    found = learn(state, "-", "--json", typed=rows("a", "a") + b"{}\n")
    printed = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(one["line"], one["client"], one["state"]) for one in printed] == [
        (1, "client_0", "accepted"), (2, "client_0", "duplicate"), (3, "client_0", "refused"),
    ]  # fmt: skip
    assert printed[2]["reason"].startswith("the record has none of the fields")
    assert found.stderr.startswith("client_0: 1 accepted, 1 duplicate, 1 refused")
    one = learn(state, "b", "--label", "positive", "--json")
    assert json.loads(one.output) == {"line": 1, "client": "client_0", "state": "accepted"}


def test_a_duplicate_of_a_rejected_item_is_reported_as_such(state: Path) -> None:
    learn(state, "a", "--label", "positive")
    with closing(schema.connect(schema.inbox_path(state, "client_0"))) as db:
        db.execute("UPDATE item SET state = 'rejected', reason = 'it forgets'")
    printed = learn(state, "a", "--label", "positive").output
    assert "already, rejected: it forgets; `fccl inbox --retry`" in printed
    printed = learn(state, "-", typed=rows("a") + rows("a", label="negative")).output
    assert printed.splitlines()[0] == "line 1: duplicate: it was rejected before"
    assert "duplicates of rejected items: 1" in printed
    assert "another answer to the same input, now superseded: 1" in printed


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class IngesterHarness:
    """An ingester whose pauses take no time, with everything that it reports."""

    def __init__(self, folder: Path, limits: IncrementalConfig) -> None:
        self.clock, self.waits, self.pauses = Clock(), list[str](), list[float]()
        self.reported = list[int]()
        self.path = schema.inbox_path(folder, "client_0")
        self.inbox = Inbox(self.path, limits, self.clock)
        self.work: Callable[[], None] = lambda: None
        parser = ItemParser(limits, CLASSES)
        self.ingester = Ingester(self.inbox, parser, self.report, self.waits.append, self.pause)

    def report(self, number: int, result: ItemResult) -> None:
        self.reported.append(number)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds
        self.work()

    def feed(self, texts: list[str], chunk: int = 1) -> None:
        self.ingester.ingest(read_lines(BytesIO(rows(*texts)), 1000), chunk)


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_rate_limit_is_waited_for_and_nothing_is_dropped(tmp_path: Path, chunk: int) -> None:
    line = IngesterHarness(tmp_path, IncrementalConfig(items_per_minute=3))
    with line.inbox:
        line.feed([f"text {n}" for n in range(9)], chunk)
        assert line.ingester.counts == LineCounts(accepted=9)
        assert line.reported == list(range(1, 10))
        at = [stored.at for stored in line.inbox.items()]
        assert at == [1000.0] * 3 + [1060.0] * 3 + [1120.0] * 3
    assert line.pauses == [60.0, 60.0]
    assert line.waits == [
        "waiting, then continuing: more than 3 items in a minute (incremental.items_per_minute)"
    ]


def test_a_full_inbox_is_waited_for_until_the_worker_has_learned_some(tmp_path: Path) -> None:
    line = IngesterHarness(tmp_path, IncrementalConfig(max_waiting=2))

    def work() -> None:
        if len(line.pauses) % 2 == 0:  # every second attempt finds no room
            with closing(schema.connect(line.path)) as db:
                db.execute("UPDATE item SET state = 'learned'")

    line.work = work
    with line.inbox:
        line.feed([f"text {n}" for n in range(6)])
        assert line.inbox.counts()["learned"] == 4 and line.inbox.counts()["waiting"] == 2
    assert line.pauses == [ingest.FULL_S] * 4
    assert len(line.waits) == 1 and "the limit is 2 (incremental.max_waiting)" in line.waits[0]


def test_after_an_interrupted_wait_the_first_line_that_was_not_stored_is_known(
    tmp_path: Path,
) -> None:
    line = IngesterHarness(tmp_path, IncrementalConfig(max_waiting=2))

    def interrupt() -> None:
        raise KeyboardInterrupt

    line.work = interrupt
    with line.inbox, pytest.raises(KeyboardInterrupt):
        line.feed(["a", "b", "c", "d"])
    assert (line.ingester.line, line.ingester.counts) == (3, LineCounts(accepted=2))


def test_a_line_is_read_in_pieces_of_bounded_size() -> None:
    stream = BytesIO(b"12345\n123456\n" + b"x" * 50 + b"\n \n1234")
    assert list(read_lines(stream, 6)) == [
        (1, b"12345\n"),
        (2, b"123456\n"),
        (3, None),
        (5, b"1234"),
    ]
    limits = IncrementalConfig(max_chars=1)
    assert len(json.dumps({"text": "\U0001f600" * 1, "label": ""})) < max_json_bytes(limits)
    with pytest.raises(DataError, match="not valid JSON"):
        parse_json(b"")


@pytest.fixture
def process(state: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Function that starts a real `fccl learn`."""
    started = list[subprocess.Popen[bytes]]()

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cli", "learn", *words, "--state", str(state)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        )
        return started[-1]

    # A parent such as `nohup` may ignore SIGINT, which the process would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, before)
    for each in started:
        with each:
            each.kill()


Start = Callable[..., "subprocess.Popen[bytes]"]


def acknowledged(process: subprocess.Popen[bytes], *texts: str) -> None:
    """Write lines and read as many acknowledgements."""
    assert process.stdin is not None and process.stdout is not None
    for text in texts:
        process.stdin.write(rows(text))
        process.stdin.flush()
        assert process.stdout.readline().endswith(b": accepted\n")


def test_kill_9_after_an_acknowledgement_loses_nothing(state: Path, process: Start) -> None:
    running = process("-")
    acknowledged(running, *(f"text {n}" for n in range(20)))
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert [fields[0] for _, fields, _, _ in items(state)] == [f"text {n}" for n in range(20)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_pipe_and_prints_the_totals(
    state: Path, process: Start, number: signal.Signals
) -> None:
    running = process("-")
    acknowledged(running, "a", "b")
    running.send_signal(number)
    out, err = running.communicate()
    assert (running.returncode, err) == (130, b"fccl learn: interrupted\n")
    assert out.startswith(b"client_0: 2 accepted, 0 duplicates, 0 refused\n")


def test_a_reader_that_goes_away_ends_it_without_a_traceback(state: Path, process: Start) -> None:
    running = process("-")
    acknowledged(running, "a")
    assert running.stdout is not None and running.stdin is not None
    running.stdout.close()
    running.stdin.write(rows("b", "c"))
    running.stdin.close()
    assert running.stderr is not None
    err = running.stderr.read().decode()
    assert running.wait() == 13
    assert err.startswith("fccl learn: standard output was closed; client_0: 2 accepted")
    assert "Traceback" not in err and "Exception" not in err
    assert [fields[0] for _, fields, _, _ in items(state)] == ["a", "b"]
