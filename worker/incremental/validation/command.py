"""Asks a command: bytes to its standard input, bytes from its standard output, within a time.

No shell. The command is a process group of its own, and nothing of the group is left when `run`
returns. It does not get fccl's own variables (passwords of servers, a join token), and what it
writes to its standard error is dropped.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Event as Flag
from typing import IO

from worker.incremental.validation.errors import (
    MAX_ANSWER,
    NEVER,
    ValidatorError,
    late,
    stopped,
    too_long,
)

_PRIVATE = "FCCL_"
_CHUNK = 64 * 1024
_LOOK_S = 0.05  # between two looks whether a command has ended whose output stays open


def run(words: Sequence[str], asked: bytes, timeout_s: float, stop: Flag = NEVER) -> bytes:
    """What a command answers.

    Args:
        words: Program and arguments.
        asked: Its input; it need not read it.
        timeout_s: In which it must have ended.
        stop: Wait no longer.

    Raises:
        Unanswered: It cannot be started, took too long, wrote too much, or failed.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(os.environ),
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValidatorError(f"cannot be started: {reason}") from None
    until = time.monotonic() + timeout_s
    try:
        answer = _talk(process, asked, until, stop)
        _wait(process, until, stop)
    except TimeoutError:
        raise late(timeout_s) from None
    finally:
        _kill(process)
    if process.returncode < 0:
        raise ValidatorError(f"was ended by {_signal_name(-process.returncode)}")
    if process.returncode:
        raise ValidatorError(f"ended with exit code {process.returncode}")
    return answer


def _talk(process: subprocess.Popen[bytes], asked: bytes, until: float, stop: Flag) -> bytes:
    """Write and read at the same time, until the output ends; `TimeoutError` where that is late."""
    assert process.stdin is not None and process.stdout is not None
    answer, rest = bytearray(), memoryview(asked)
    with selectors.DefaultSelector() as selector, process.stdin as stdin, process.stdout as stdout:
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            left = _left(until, stop)
            ended = process.poll() is not None
            ready = [key.fileobj for key, _ in selector.select(0 if ended else min(left, _LOOK_S))]
            if stdin in ready and not (rest := _write(stdin, rest)):
                selector.unregister(stdin)
                stdin.close()
            if stdout in ready:
                chunk = os.read(stdout.fileno(), _CHUNK)
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise too_long()
                if not chunk:
                    return bytes(answer)
            elif ended:  # something that it has started holds the output open
                return bytes(answer)


def _wait(process: subprocess.Popen[bytes], until: float, stop: Flag) -> None:
    while True:
        try:
            process.wait(min(_left(until, stop), _LOOK_S))
            return
        except subprocess.TimeoutExpired:
            continue


def _left(until: float, stop: Flag) -> float:
    """Seconds; `TimeoutError` where there are none."""
    if stop.is_set():
        raise stopped()
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _write(stdin: IO[bytes], data: memoryview) -> memoryview:
    """What is left to be written; nothing where the command reads no more, which is its right."""
    try:
        return data[os.write(stdin.fileno(), data[:_CHUNK]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the group: the command, and what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in own.items() if not name.startswith(_PRIVATE)}
