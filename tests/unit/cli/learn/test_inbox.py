"""`fccl inbox` lists items, lets rejected ones wait again, and deletes items."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.main import fccl
from common.config.config import IncrementalConfig
from common.errors import DataError, FcclError
from worker.incremental.inbox import schema
from worker.incremental.inbox.inbox import Inbox
from worker.incremental.inbox.items import Item
from worker.incremental.serving import served_run
from worker.incremental.serving.served_run import ServedRun

SERVED = ServedRun(run="run-1", name="run", clients=("a", "b", "c"), kinds=("cls",), labels=("x",))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three items of client a, one of b, none of c."""
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "state"
    served_run.write(found, SERVED)
    for client, texts in {"a": ("one", "two", "three\x1b[2J"), "b": ("four",)}.items():
        with Inbox(schema.inbox_path(found, client), IncrementalConfig()) as inbox:
            inbox.put([Item("cls", {"text": text, "label": "x"}) for text in texts], "http")
    with closing(schema.connect(schema.inbox_path(found, "a"))) as db:
        db.execute("UPDATE item SET state = 'settled', held = 1 WHERE id = 1")
        db.execute("UPDATE item SET state = 'rejected', reason = 'no:\x1b[2J' WHERE id = 2")
    return found


def inbox(state: Path, *words: str, typed: str = "") -> str:
    arguments = ["inbox", *words, "--state", str(state)]
    return CliRunner().invoke(fccl, arguments, input=typed, catch_exceptions=False).output


def refusal(state: Path, *words: str) -> str:
    with pytest.raises((FcclError, click.UsageError)) as raised:
        fccl.main(["inbox", *words, "--state", str(state)], standalone_mode=False)
    return str(raised.value)


def states(state: Path, client: str = "a") -> dict[int, str]:
    with Inbox(schema.inbox_path(state, client), IncrementalConfig()) as opened:
        return {stored.id: stored.state for stored in opened.items()}


def test_counts_and_items_are_listed_by_client_without_a_text(state: Path) -> None:
    lines = [line.split() for line in inbox(state).splitlines()]
    assert lines[0][:2] == ["a:", "1"]
    assert " ".join(lines[0][1:]) == (
        "1 waiting, 0 learned, 1 settled, 1 rejected, 0 superseded"
    )  # fmt: skip
    assert lines[2] == ["3", "0", "s", "waiting", "cls", "feedback", "http"]
    assert lines[3] == ["2", "0", "s", "rejected", "cls", "feedback", "http", "no:", "[2J"]
    assert lines[4] == ["1", "0", "s", "settled,", "held", "out", "cls", "feedback", "http"]
    assert lines[5][:3] == ["b:", "1", "waiting,"]
    found = inbox(state)
    assert not any(text in found for text in ("one", "two", "three", "four", "\x1b"))
    assert "and 2 older ones (--limit)" in inbox(state, "--limit", "1", "--client", "a")


def test_texts_are_shown_on_request_without_control_characters(state: Path) -> None:
    assert inbox(state, "--show", "3", "--client", "a") == (
        "a 3, waiting, 0 s old, feedback\n  text: three [2J\n  label: x\n"
    )
    every = inbox(state, "--show", "all")
    assert [word in every for word in ("one", "two", "three", "four", "\x1b")] == [True] * 4 + [
        False
    ]


def test_json_output_lists_all_items(state: Path) -> None:
    found = json.loads(inbox(state, "--json"))
    assert found["a"]["counts"]["rejected"] == found["b"]["counts"]["waiting"] == 1
    assert [item["id"] for item in found["a"]["items"]] == [3, 2, 1]
    assert found["a"]["items"][1]["reason"] == "no:\x1b[2J"
    assert "item" not in found["a"]["items"][0]
    listed = json.loads(inbox(state, "--json", "--show", "1,2", "--client", "a"))
    assert [item["item"]["text"] for item in listed["a"]["items"]] == ["two", "one"]


def test_rejected_items_wait_again(state: Path) -> None:
    assert inbox(state, "--retry", "--client", "a").splitlines() == [
        "a: 1 rejected item waits again",
        "no worker is running here; the next one learns it (`fccl worker`)",
    ]
    assert states(state) == {1: "settled", 2: "waiting", 3: "waiting"}
    assert inbox(state, "--retry", "all", "--client", "a").startswith("a: 0 rejected items wait")
    assert "item 1 of a is settled, not rejected" in refusal(state, "--retry", "1", "--client", "a")


def test_items_are_deleted_after_confirmation(state: Path) -> None:
    message = refusal(state, "--forget", "all", "--client", "a")
    assert message == "--forget deletes 3 items of a: confirm it with --yes"
    assert "a has no item 9" in refusal(state, "--forget", "3,9", "--yes", "--client", "a")
    assert len(states(state)) == 3
    inbox(state, "--forget", "3,1", "--yes", "--client", "a")
    assert states(state) == {2: "rejected"}
    assert inbox(state, "--forget", "all", "--yes", "--client", "b").startswith("b: 1 item deleted")
    folder = schema.inbox_path(state, "b").parent
    assert b"four" not in b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--retry",), "there are inboxes of a, b; choose one with --client"),
        (("--show", "1"), "choose one with --client"),
        (("--forget", "all", "--yes", "--client", "c"), "there are inboxes of a, b"),
        (("--client", "../a"), "there are inboxes of a, b"),
        (("--show", "x"), "name items by their numbers"),
        (("--show", "9" * 40), "name items by their numbers"),
        (("--show", "-1"), "name items by their numbers"),
        (("--show", "1", "--forget", "1"), "exclude each other"),
        (("--yes",), "--yes requires --forget"),
        (("--json", "--retry"), "--json can only list items"),
    ],
)
def test_invalid_options_are_refused(state: Path, words: tuple[str, ...], says: str) -> None:
    before = states(state) | states(state, "b")
    assert says in refusal(state, *words)
    assert states(state) | states(state, "b") == before


def test_without_any_inbox_the_error_says_how_to_begin(state: Path, tmp_path: Path) -> None:
    assert "no worker has served a client" in refusal(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    served_run.write(tmp_path / "new", SERVED)
    with pytest.raises(DataError, match=r"has an inbox yet; .*`fccl learn` or `fccl try`"):
        fccl.main(["inbox", "--state", str(tmp_path / "new")], standalone_mode=False)
