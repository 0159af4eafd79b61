"""Where `fccl demo` draws a screen, and what it understands of the process behind it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from cli.demo.child import Told, parse
from cli.demo.command import again
from cli.demo.terminal import fits

GOOD = {"TERM": "xterm-256color"}


@pytest.fixture
def terminal() -> Iterator[IO[bytes]]:
    """A terminal of 80 × 24."""
    ours, its = pty.openpty()
    with os.fdopen(its, "r+b", buffering=0) as terminal:
        resize(terminal, 80, 24)
        yield terminal
    os.close(ours)


def resize(terminal: IO[bytes], columns: int, rows: int) -> None:
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(terminal.fileno(), termios.TIOCSWINSZ, size)


def test_a_terminal_gets_a_screen(terminal: IO[bytes]) -> None:
    assert fits(GOOD, terminal, terminal)


@pytest.mark.parametrize("environment", [GOOD | {"CI": "true"}, {"TERM": "dumb"}, {}])
def test_who_cannot_look_gets_lines(terminal: IO[bytes], environment: dict[str, str]) -> None:
    assert not fits(environment, terminal, terminal)


@pytest.mark.parametrize(("columns", "rows"), [(59, 24), (80, 15)])
def test_a_terminal_that_is_too_small_gets_lines(
    terminal: IO[bytes], columns: int, rows: int
) -> None:
    resize(terminal, columns, rows)
    assert not fits(GOOD, terminal, terminal)


def test_a_pipe_gets_lines(terminal: IO[bytes], tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        assert not fits(GOOD, file, terminal)
        assert not fits(GOOD, terminal, file)


def test_what_is_no_object_was_printed_by_something_else() -> None:
    entry = {"kind": "text", "message": "run x"}
    assert parse(b'{"kind": "text", "message": "run x"}\n') == Told("text", "run x", entry)
    for line in (b"warning: \xff", b"[1, 2]", b'{"kind": "text"}', b"7"):
        assert parse(line).kind == "stderr"


def test_the_process_behind_the_view_gets_the_same_options() -> None:
    made = again(Path("f.toml"), None, Path("runs/x"), "new")
    assert made == ["demo", "--told", "--config", "f.toml", "--out", "runs/x", "--new"]
    assert again(None, Path("d.jsonl"), None, "start") == ["demo", "--told", "--data", "d.jsonl"]
