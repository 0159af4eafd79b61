"""A child process of `fccl coordinator` for tasks that need torch.

`cli/run/child_main.py` is the program of the child. Requests go to its standard input and messages
come from its standard output, one JSON object per line. The child ends when its standard input is
closed, so that none outlives a coordinator that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from cli.child_messages import ChildMessage, MessageKind, open_child, parse_message
from cli.console import Output
from common import errors
from common.errors import FcclError, RunError

CLOSING_S = 5.0  # for a task to clean up


def open_process(task: str) -> subprocess.Popen[bytes]:
    """Start a Python process for a task."""
    return open_child("cli.run.child_main", task)


class ChildProcess:
    """A child process that performs one task.

    Args:
        task: A name in `cli.run.child_main.TASKS`.
        request: Arguments of the task, as JSON values.
    """

    def __init__(self, task: str, request: Mapping[str, Any]) -> None:
        self._task, self._request = task, request
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and send the request.

        Raises:
            RunError: The operating system refuses to start it.
        """
        try:
            self._process = open_process(self._task)
        except OSError as error:
            raise RunError(
                f"the process for {self._task!r} cannot be started: {error.strerror}",
                "check the limits on processes and memory",
            ) from None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: `messages` says why
            self._process.stdin.write(json.dumps(self._request).encode() + b"\n")
            self._process.stdin.flush()
        # From now on a child that does not read must not block the coordinator.
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, command: Mapping[str, Any]) -> bool:
        """Send a short command without blocking; return whether it was written."""
        if self._process is None or self._process.stdin is None:
            return False
        try:
            # At most PIPE_BUF bytes, so that the line is written whole or not at all.
            os.write(self._process.stdin.fileno(), json.dumps(command).encode() + b"\n")
        except (OSError, ValueError):  # full, ended, or closed
            return False
        return True

    def messages(self) -> Iterator[ChildMessage]:
        """Yield messages until the child has ended.

        Raises:
            FcclError: The child reported an error (of the class that it names) or has crashed.
            RunError: The child was killed.
        """
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            message = parse_message(line)
            if message.kind is MessageKind.ERROR:
                raise _translated(message)
            if message.kind in (MessageKind.STDOUT, MessageKind.STDERR):
                print(message.text, file=sys.stderr, flush=True)
            elif message.kind is MessageKind.CRASH:
                print(message.fields.get("traceback", ""), file=sys.stderr, flush=True)
                raise FcclError(
                    f"{self._task} failed unexpectedly: {message.text}",
                    "report this as a bug, with the lines above",
                )
            else:
                yield message
        code = self._process.wait()
        if code != 0:
            raise RunError(f"{self._task} ended early: {_describe_exit(code)}", _KILLED_REMEDY)

    def kill(self) -> None:
        """Kill the child; another thread that reads messages sees its end."""
        if self._process is not None:
            self._process.kill()

    def close(self, grace_s: float = CLOSING_S) -> None:
        """End the child, and kill it if that takes longer than `grace_s` seconds."""
        process = self._process
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_task(task: str, request: Mapping[str, Any], output: Output) -> Any:
    """Perform a task in a child process, show its progress, and return its result.

    Raises:
        FcclError: The task raised it, crashed, or was killed.
    """
    child = ChildProcess(task, request)
    result = None
    try:
        child.start()
        for message in child.messages():
            if message.kind is MessageKind.TEXT:
                output.print(message.text)
            elif message.kind is MessageKind.PROGRESS:
                output.progress(message.text, float(message.fields["progress"]))
            elif message.kind is MessageKind.RESULT:
                result = message.fields["result"]
    finally:
        child.close()
    return result


_KILLED_REMEDY = "check that there is enough memory (the kernel log names processes it has killed)"


def _translated(message: ChildMessage) -> FcclError:
    kind = getattr(errors, str(message.fields.get("error")), FcclError)
    what, remedy = message.fields.get("what", message.text), message.fields.get("remedy", "")
    error: FcclError = kind(str(what), str(remedy))
    return error


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
