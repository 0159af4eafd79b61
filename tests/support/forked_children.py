"""Children of `fccl coordinator` forked from a process that has loaded torch already.

A coordinator under test then waits for no import of torch. The children are forked before the
coordinator has threads or connections, and wait for their tasks.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from cli.run import child_main, child_process

COUNT = 3  # preparation, live samples, report
POLL_S = 0.02


class ForkedChild:
    """A forked process with the methods of `subprocess.Popen` that `ChildProcess` uses."""

    def __init__(self, inherited: Sequence[int]) -> None:
        """Fork.

        Args:
            inherited: Pipe ends of earlier children: while this one has them, they see no end.
        """
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for number in (to_stdin, from_stdout, *inherited):
                os.close(number)
            _wait_for_task(stdin, stdout)
        os.close(stdin)
        os.close(stdout)
        self.stdin: IO[bytes] = os.fdopen(to_stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(from_stdout, "rb")
        self.returncode: int | None = None

    @property
    def pipe_ends(self) -> tuple[int, int]:
        return self.stdin.fileno(), self.stdout.fileno()

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("child", timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, 9)


def install() -> None:
    """Let this process start forked children from now on."""
    children: list[ForkedChild] = []
    for _ in range(COUNT):
        inherited = [end for child in children for end in child.pipe_ends]
        children.append(ForkedChild(inherited))

    def open_process(task: str) -> ForkedChild:
        child = children.pop()
        child.stdin.write(task.encode() + b"\n")
        child.stdin.flush()
        return child

    child_process.open_process = open_process  # type: ignore[assignment]


def _wait_for_task(stdin: int, stdout: int) -> None:
    """Become the child process of the task that the first line of input names."""
    os.setsid()
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.close(stdin)
    os.close(stdout)
    task = b""
    while not task.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:  # the coordinator has ended
            os._exit(0)
        task += byte
    child_main.main(task.decode().strip())
