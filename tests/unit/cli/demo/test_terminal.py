"""Terminals on which `fccl demo` shows a screen, and messages between its processes."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from cli.child_messages import MessageKind, MessageOutput, parse_message
from cli.demo.command import child_arguments
from cli.demo.terminal import can_show_screen
from cli.jsonlog import JsonLog
from common.protocol.feed import Event

GOOD = {"TERM": "xterm-256color"}


@pytest.fixture
def terminal() -> Iterator[IO[bytes]]:
    """A terminal of 80 × 24."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "r+b", buffering=0) as terminal:
        resize(terminal, 80, 24)
        yield terminal
    os.close(master)


def resize(terminal: IO[bytes], columns: int, rows: int) -> None:
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(terminal.fileno(), termios.TIOCSWINSZ, size)


def test_a_terminal_gets_a_screen(terminal: IO[bytes]) -> None:
    assert can_show_screen(GOOD, terminal, terminal)


@pytest.mark.parametrize("environment", [GOOD | {"CI": "true"}, {"TERM": "dumb"}, {}])
def test_ci_and_dumb_terminals_get_lines(terminal: IO[bytes], environment: dict[str, str]) -> None:
    assert not can_show_screen(environment, terminal, terminal)


@pytest.mark.parametrize(("columns", "rows"), [(59, 24), (80, 15)])
def test_a_terminal_that_is_too_small_gets_lines(
    terminal: IO[bytes], columns: int, rows: int
) -> None:
    resize(terminal, columns, rows)
    assert not can_show_screen(GOOD, terminal, terminal)


def test_a_pipe_gets_lines(terminal: IO[bytes], tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        assert not can_show_screen(GOOD, file, terminal)
        assert not can_show_screen(GOOD, terminal, file)


def test_messages_arrive_as_they_were_sent() -> None:
    stream = io.StringIO()
    output = MessageOutput(JsonLog(stream, "test"))
    event = Event(at=1.0, level="info", kind="version", text="version 1", refs={"version": 1})
    output.print("run x")
    output.print_event(event)
    output.progress("loading", 0.251)
    output.progress("loading", 0.252)  # the same percent
    text, sent_event, progress = map(parse_message, stream.getvalue().encode().splitlines())
    assert (text.kind, text.text) == (MessageKind.TEXT, "run x")
    assert sent_event.kind is MessageKind.EVENT
    assert Event.model_validate(sent_event.fields["event"]) == event
    assert (progress.kind, progress.text) == (MessageKind.PROGRESS, "loading")
    assert progress.fields["progress"] == 0.251


@pytest.mark.parametrize("line", [b"warning: \xff", b"[1, 2]", b'{"kind": "unknown"}', b"7"])
def test_any_other_line_counts_as_output_of_a_library(line: bytes) -> None:
    assert parse_message(line).kind is MessageKind.STDERR


def test_a_message_to_a_killed_process_is_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    MessageOutput(JsonLog(stream, "test")).print("nobody reads this")
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_the_process_behind_the_screen_gets_the_same_options() -> None:
    arguments = child_arguments(Path("f.toml"), None, Path("runs/x"), "new", "/dev/pts/1")
    assert arguments[:3] == ["demo", "--child-of", "/dev/pts/1"]
    assert arguments[3:] == ["--config", "f.toml", "--out", "runs/x", "--new"]
    arguments = child_arguments(None, Path("d.jsonl"), None, "start", "/dev/pts/1")
    assert arguments[3:] == ["--data", "d.jsonl"]
