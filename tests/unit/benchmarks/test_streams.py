"""What the experiment of learning from users tells its clients, and measures by."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import domains, streams
from benchmarks.streams import Amounts
from common.errors import DataError

CLIENTS = ("client_0", "client_1")
AMOUNTS = Amounts(tests=6, films=15, batches=2, batch=10, lies=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in zip(streams.FILES, (range(260), range(1000, 1040)), strict=True):
        lines = [f"film number {n}\t{n % 2}\n" for n in rows]
        (tmp_path / name).write_text("".join(lines), encoding="utf-8")
    return tmp_path


def test_each_client_is_told_three_domains_and_lies_in_steps(folder: Path) -> None:
    found = streams.course(folder, CLIENTS, AMOUNTS, 0)
    told = [(step[0].domain, *(len(lesson.rows) for lesson in step)) for step in found.steps]
    machines, hospital = domains.NAMES
    assert told == [
        ("films", 10, 10), ("films", 5, 5), (machines, 10, 10), (machines, 10, 10),
        (hospital, 10, 10), (hospital, 10, 10), ("flipped", 4, 4),
    ]  # fmt: skip
    assert [lesson.client for lesson in found.steps[0]] == [*CLIENTS]
    assert found.steps[-1][0].task == hospital  # who lies does not say so
    assert {name: len(tests) for name, tests in found.tests.items()} == {
        "films": 6, machines: 6, hospital: 6,
    }  # fmt: skip


def test_nothing_is_told_twice_dealt_as_well_or_measured_by(folder: Path) -> None:
    found = streams.course(folder, CLIENTS, AMOUNTS, 0)
    told = [row.text for step in found.steps[:-1] for lesson in step for row in lesson.rows]
    dealt = [row.text for row in found.dealt]
    tests = [row.text for rows in found.tests.values() for row in rows]
    assert len(dealt) == 260 - 30
    assert len({*told, *dealt, *tests}) == len(told) + len(dealt) + len(tests)


def test_too_few_films_are_a_data_error(folder: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        streams.course(folder, CLIENTS, Amounts(films=100), 0)
