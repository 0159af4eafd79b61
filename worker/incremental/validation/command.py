"""Validator that is a command: it reads standard input and answers on standard output in time.

No shell is involved. The command runs in a process group of its own, of which nothing is left when
`run` returns. It does not receive fccl's own environment variables (passwords of servers, join
tokens), and what it writes to standard error is dropped.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import IO

from worker.incremental.validation.errors import (
    MAX_ANSWER,
    ValidatorError,
    answer_too_long,
    cancelled,
    timed_out,
)

_PRIVATE_PREFIX = "FCCL_"
_CHUNK = 64 * 1024
_POLL_S = 0.05  # interval of checks whether a command has ended although its output is open


def run(words: Sequence[str], request: bytes, timeout_s: float, stop: Event) -> bytes:
    """Run a command and return its output.

    Args:
        words: Program and arguments.
        request: Its input, which it need not read.
        timeout_s: Time within which it must have ended.
        stop: Ends the command and the waiting when set.

    Raises:
        ValidatorError: The command cannot be started, took too long, wrote too much, or failed.
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
    deadline = time.monotonic() + timeout_s
    try:
        answer = _talk(process, request, deadline, stop)
        _wait(process, deadline, stop)
    except TimeoutError:
        raise timed_out(timeout_s) from None
    finally:
        _kill(process)
    if process.returncode < 0:
        raise ValidatorError(f"was killed by {_signal_name(-process.returncode)}")
    if process.returncode:
        raise ValidatorError(f"failed with exit code {process.returncode}")
    return answer


def _talk(process: subprocess.Popen[bytes], request: bytes, deadline: float, stop: Event) -> bytes:
    """Write the input while reading the output, up to its end.

    Raises:
        TimeoutError: The deadline has passed.
    """
    assert process.stdin is not None and process.stdout is not None
    answer, rest = bytearray(), memoryview(request)
    with selectors.DefaultSelector() as selector, process.stdin as stdin, process.stdout as stdout:
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            left = _remaining(deadline, stop)
            ended = process.poll() is not None
            ready = [key.fileobj for key, _ in selector.select(0 if ended else min(left, _POLL_S))]
            if stdin in ready and not (rest := _write(stdin, rest)):
                selector.unregister(stdin)
                stdin.close()
            if stdout in ready:
                chunk = os.read(stdout.fileno(), _CHUNK)
                answer += chunk
                if len(answer) > MAX_ANSWER:
                    raise answer_too_long()
                if not chunk:
                    return bytes(answer)
            elif ended:  # a process that it started keeps the output open
                return bytes(answer)


def _wait(process: subprocess.Popen[bytes], deadline: float, stop: Event) -> None:
    while True:
        try:
            process.wait(min(_remaining(deadline, stop), _POLL_S))
            return
        except subprocess.TimeoutExpired:
            continue


def _remaining(deadline: float, stop: Event) -> float:
    """Return the seconds that are left; raise `TimeoutError` if there are none."""
    if stop.is_set():
        raise cancelled()
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _write(stdin: IO[bytes], data: memoryview) -> memoryview:
    """Write some data and return the rest; nothing is left if the command stops reading."""
    try:
        return data[os.write(stdin.fileno(), data[:_CHUNK]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return data[:0]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group: the command and everything that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in own.items() if not name.startswith(_PRIVATE_PREFIX)}
