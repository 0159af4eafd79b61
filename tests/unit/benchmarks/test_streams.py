"""Rows of the experiment on learning from users."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import domains, streams
from benchmarks.streams import StreamSizes
from common.errors import DataError

CLIENTS = ("client_0", "client_1")
AMOUNTS = StreamSizes(tests=6, films=15, batches=2, batch=10, flipped=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in zip(streams.FILES, (range(260), range(1000, 1040)), strict=True):
        lines = [f"film number {n}\t{n % 2}\n" for n in rows]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    return tmp_path


def test_each_client_receives_three_domains_and_flipped_labels_in_steps(folder: Path) -> None:
    found = streams.stream_rows(folder, CLIENTS, AMOUNTS, 0)
    streamed = [(step[0].domain, *(len(batch.rows) for batch in step)) for step in found.steps]
    machines, hospital = domains.NAMES
    assert streamed == [
        ("films", 10, 10), ("films", 5, 5), (machines, 10, 10), (machines, 10, 10),
        (hospital, 10, 10), (hospital, 10, 10), ("flipped", 4, 4),
    ]  # fmt: skip
    assert [batch.client for batch in found.steps[0]] == [*CLIENTS]
    assert found.steps[-1][0].task == hospital  # flipped labels are not declared as such
    assert {name: len(tests) for name, tests in found.tests.items()} == {
        "films": 6, machines: 6, hospital: 6,
    }  # fmt: skip


def test_no_row_is_used_twice(folder: Path) -> None:
    found = streams.stream_rows(folder, CLIENTS, AMOUNTS, 0)
    streamed = [row.text for step in found.steps[:-1] for batch in step for row in batch.rows]
    dealt = [row.text for row in found.dealt]
    tests = [row.text for rows in found.tests.values() for row in rows]
    assert len(dealt) == 260 - 30
    assert len({*streamed, *dealt, *tests}) == len(streamed) + len(dealt) + len(tests)


def test_too_few_films_are_a_data_error(folder: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        streams.stream_rows(folder, CLIENTS, StreamSizes(films=100), 0)
