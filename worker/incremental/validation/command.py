"""Validator that is a command: it reads standard input and answers on standard output in time.

No shell is involved. The command runs in a process group of its own, of which nothing is left when
`run` returns. It does not receive fccl's own environment variables (passwords of servers, join
tokens), and what it writes to standard error is dropped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
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
_POLL_S = 0.05  # interval of checks for an end, a cancellation, or too long an answer


def run(words: Sequence[str], request: bytes, timeout_s: float, stop: Event) -> bytes:
    """Run a command and return its output; it need not read the request, its input.

    Raises:
        ValidatorError: The command cannot be started, took too long, wrote too much, failed, or was
            ended by `stop`.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE_PREFIX)}
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValidatorError(f"cannot be started: {reason}") from None
    with process:
        try:
            answer = _communicate(process, request, timeout_s, stop)
        finally:
            _kill_group(process)
    if process.returncode < 0:
        raise ValidatorError(f"was killed by {_signal_name(-process.returncode)}")
    if process.returncode:
        raise ValidatorError(f"failed with exit code {process.returncode}")
    return answer


def _communicate(
    process: subprocess.Popen[bytes], request: bytes, timeout_s: float, stop: Event
) -> bytes:
    """Write the input while reading the output, up to the end of the command."""
    # In a thread: `communicate` does not go on with its input after a time-out (Python 3.11).
    stdin, process.stdin = process.stdin, None
    threading.Thread(target=_write, args=(stdin, request), name="request", daemon=True).start()
    deadline = time.monotonic() + timeout_s
    while True:
        remaining = deadline - time.monotonic()
        try:
            answer, _ = process.communicate(timeout=max(0.0, min(remaining, _POLL_S)))
        except subprocess.TimeoutExpired as unfinished:
            if len(unfinished.output or b"") > MAX_ANSWER:
                raise answer_too_long() from None
            if stop.is_set():
                raise cancelled() from None
            if remaining <= 0:
                raise timed_out(timeout_s) from None
            if process.poll() is not None:  # a process that it started keeps the output open
                _kill_group(process)
            continue
        if len(answer) > MAX_ANSWER:
            raise answer_too_long()
        return answer


def _write(stdin: IO[bytes] | None, request: bytes) -> None:
    assert stdin is not None
    with suppress(OSError), stdin:  # the command need not read it
        stdin.write(request)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the command and everything that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
