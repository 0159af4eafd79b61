"""Log lines as JSON objects, also those that libraries print."""

from __future__ import annotations

import io
import json
from typing import Any

import click
import pytest

from cli.console import Output
from cli.jsonlog import JsonLog, JsonStream
from common.protocol.feed import Event


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> JsonLog:
    return JsonLog(stream, "coordinator")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_keeps_its_time_level_kind_and_references(
    stream: io.StringIO, log: JsonLog
) -> None:
    output = Output(plain=False, log=log)
    output.set_context(run="r1")
    refs: dict[str, str | int | float] = {"client": "client_0", "version": 3, "level": "forged"}
    output.print_event(Event(at=0.25, level="warning", kind="lease", text="again", refs=refs))
    assert lines(stream) == [
        {
            "ts": "1970-01-01T00:00:00.250Z",
            "level": "warning",
            "kind": "lease",
            "message": "again",
            "component": "coordinator",
            "run": "r1",
            "client": "client_0",
            "version": 3,
        }
    ]


def test_text_of_several_lines_is_one_object(stream: io.StringIO, log: JsonLog) -> None:
    Output(plain=True, log=log).print("one\ntwo\u2028three")
    assert [entry["message"] for entry in lines(stream)] == ["one\ntwo\u2028three"]


def test_progress_is_logged_in_quarters(stream: io.StringIO, log: JsonLog) -> None:
    output = Output(plain=True, log=log)
    for percent in range(101):
        output.progress("training the base", percent / 100)
    assert [entry["progress"] for entry in lines(stream)] == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach amqp://guest:sesame@host:5672/",
        "cannot reach redis://:sesame@host/0",
        "cannot reach redis://host/0?password=sesame&db=1",
    ],
)
def test_a_password_in_a_url_is_left_out(stream: io.StringIO, log: JsonLog, text: str) -> None:
    log.write("error", "error", text)
    assert "sesame" not in stream.getvalue()
    assert "***" in stream.getvalue()
    assert "host" in stream.getvalue()


def test_output_of_libraries_becomes_one_object_per_line(stream: io.StringIO, log: JsonLog) -> None:
    out = JsonStream(log, "warning", "stderr")
    print("a warning", file=out)
    print("two\n\nlines", file=out)
    click.echo("by click", file=out)
    out.write("unfin")
    out.write("ished\n")
    out.write("\r 10 %\r 50 %")
    out.write("\r100 %\n")
    found = lines(stream)
    assert [entry["message"] for entry in found] == [
        "a warning", "two", "lines", "by click", "unfinished", "100 %",
    ]  # fmt: skip
    assert {(entry["level"], entry["kind"]) for entry in found} == {("warning", "stderr")}
