"""What `fccl evaluate --incremental` reads from inboxes, prints and writes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from cli.main import fccl
from cli.models import incremental
from common.document.markdown import to_markdown
from common.errors import DataError
from worker.incremental.inbox import schema
from worker.incremental.report import history, report
from worker.incremental.report.stream import stream_figures

Measured = tuple[float, float | None]


def inbox(state: Path, client: str) -> sqlite3.Connection:
    return schema.connect(schema.inbox_path(state, client))


def item(db: sqlite3.Connection, state: str, batch: int | None = None, reason: str = "") -> None:
    (number,) = db.execute("SELECT count(*) FROM item").fetchone()
    db.execute(
        "INSERT INTO item (key, input_key, kind, fields, task, source, at, state, batch, reason)"
        " VALUES (?, ?, 'cls', '{\"text\": \"a secret\"}', 'a', 'learn', 1, ?, ?, ?)",
        (str(number), str(number), state, batch, reason),
    )


def batch(
    db: sqlite3.Connection,
    task: str,
    new: tuple[Measured, Measured],
    anchors: tuple[Measured, Measured] | None = None,
    after: Mapping[str, Measured] | None = None,
    reason: str = "",
    run: str = "r-1",
) -> None:
    names = ("new_before", "new_after", "anchor_before", "anchor_after")
    pairs = (*new, *(anchors or (None, None)))
    found: dict[str, Any] = {
        name: None if pair is None else dict(zip(("loss", "accuracy"), pair, strict=True))
        for name, pair in zip(names, pairs, strict=True)
    }
    cursor = db.execute(
        "INSERT INTO batch (run, version, kind, task, at, items, held, steps, seconds, verdict,"
        " reason, figures) VALUES (?, 3, 'cls', ?, 0, 20, 4, 9, 1.5, ?, ?, ?)",
        (run, task, "rejected" if reason else "accepted", reason, json.dumps(found)),
    )
    for name, (loss, accuracy) in (after or {}).items():
        values = (cursor.lastrowid, name, loss, accuracy, 8)
        db.execute("INSERT INTO measure VALUES (?, ?, ?, ?, ?)", values)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Two clients: one learned `a`, then `b` after a burst that was rejected; one only waits."""
    with closing(inbox(tmp_path, "client_0")) as db:
        was, now = ((1.0, 0.5), (0.5, 0.75)), ((0.2, 0.9), (0.2, 0.85))
        batch(db, "a", was, now, {"": (0.2, 0.85), "a": (0.5, 0.75)})
        bad = ((0.1, 1.0), (9.0, 0.0))
        batch(db, "a", bad, bad, reason="forgetting: anchor loss 0.2 to 9.0, over 0.2")
        was = ((1.0, 0.25), (0.5, 1.0))
        batch(db, "b", was, now, {"": (0.2, 0.8), "a": (0.6, 0.7), "b": (0.4, 1.0)})
        for verdict in ("waiting", "learned", "settled", "settled"):
            item(db, verdict)
        item(db, "rejected", 2)
        item(db, "rejected", reason="its label is none of the run's classes")
    with closing(inbox(tmp_path, "client_1")) as db:
        item(db, "waiting")
    return tmp_path


def test_the_gates_measurements_before_a_first_batch_complete_the_stream(state: Path) -> None:
    (stream,) = history.read(state, "client_0").streams
    found = stream_figures(stream.measurements)
    assert [task.task for task in found.tasks] == ["", "a", "b"]
    # Before the stream, the own data by the anchors and `a` by its new items; `b` after `a`.
    assert found.matrix == ((0.9, 0.5, None), (0.85, 0.75, 0.25), (0.8, 0.7, 1.0))
    assert found.forgetting == pytest.approx((0.1 + 0.05) / 2)
    assert found.backward_transfer == pytest.approx((-0.1 - 0.05) / 2)


def test_items_and_reasons_are_counted_and_no_text_is_shown(state: Path) -> None:
    found = history.read(state, "client_0")
    assert (found.items["settled"], found.items["rejected"]) == (2, 2)
    assert found.refused == {"its label is none of the run's classes": 1}
    text = to_markdown(report.blocks([found]))
    assert "2 batches accepted, 1 rejected" in text
    assert "batch 2 (a, 20 items): forgetting: anchor loss 0.2 to 9.0, over 0.2" in text
    assert "| b (batch 3) | 0.800 | 0.700 | 1.000 |" in text
    assert "| forgotten | +0.100 | +0.050 | – |" in text
    assert "secret" not in text + json.dumps(report.fields([found]))


def test_another_run_is_another_stream_without_a_measurement_before_it(
    state: Path,
) -> None:
    with closing(inbox(state, "client_0")) as db:
        same = ((0.3, 0.8), (0.2, 0.9))
        batch(db, "a", same, same, {"": (0.5, 0.6), "a": (0.1, 1.0)}, run="r-2")
    found = history.read(state, "client_0")
    assert [stream.run for stream in found.streams] == ["r-1", "r-2"]
    # Its anchors contain items that the first run learned, so they are not the own data alone.
    assert stream_figures(found.streams[1].measurements).matrix == ((None, None), (0.6, 1.0))
    assert [stream.run for stream in report.latest_streams(found)] == ["r-2"]
    assert "3 batches of earlier runs" in to_markdown(report.blocks([found]))


def test_a_loss_that_is_not_finite_is_missing(state: Path) -> None:
    with closing(inbox(state, "client_1")) as db:
        nothing = ((float("inf"), None), (float("inf"), None))
        batch(db, "a", nothing, reason="it is not finite")
    found = history.read(state, "client_1")
    assert found.streams[0].batches[0].figure("new_before") is None
    assert "it is not finite" in to_markdown(report.blocks([found]))
    assert "Infinity" not in json.dumps(report.fields([found]))


def test_the_command_writes_all_formats_and_prints_nothing_but_json(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert incremental.run_report(state, None, tmp_path / "out", as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "incremental.json").read_text())
    assert set(found["clients"]) == {"client_0", "client_1"}
    (stream,) = found["clients"]["client_0"]["streams"]
    assert stream["matrix"][0] == [0.9, 0.5, None]
    assert [one["verdict"] for one in stream["batches"]] == ["accepted", "rejected", "accepted"]
    png = tmp_path / "out" / "incremental_client_0_cls.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "data:image/png" in (tmp_path / "out" / "incremental.html").read_text()
    assert "(incremental_client_0_cls.png)" in (tmp_path / "out" / "incremental.md").read_text()


def test_missing_inboxes_and_histories_are_reported(state: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere holds no inbox; .*`fccl learn` or `fccl try`"):
        incremental.read_histories(tmp_path / "nowhere", None)
    with pytest.raises(
        DataError, match=r"no inbox of client 'x'; choose one of client_0, client_1"
    ):
        incremental.read_histories(state, "x")
    with pytest.raises(
        DataError, match="nothing has been learned from live input yet: 1 items wait"
    ):
        incremental.read_histories(state, "client_1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'RUN'"),
        (["runs/x", "--incremental"], "RUN and --incremental exclude each other"),
        (["runs/x", "--client", "a"], "--client requires --incremental"),
        (["--incremental", "--gen-samples", "3"], "--gen-samples requires a RUN"),
    ],
)
def test_options_that_exclude_each_other_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        fccl.main(["evaluate", *arguments], standalone_mode=False)
    assert message in caught.value.format_message()
