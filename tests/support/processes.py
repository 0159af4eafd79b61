"""`fccl` commands as processes of their own, to watch, signal and kill.

There are two ways to start one. `script` runs the console script as a user does; it spends seconds
on importing torch. `fork` runs the same `cli.main.main` in a process forked from one that has
imported torch already: it can be killed like any other process, but it is ready at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from tests.support import forked_children

LONG = 90.0
"""Limit of a wait for something that must happen, in seconds."""
POLL = 0.02
SCRIPT = Path(sys.executable).with_name("fccl")

T = TypeVar("T")


def one_line(command: Command, code: int, *says: str) -> str:
    """Return the one line that a failed command printed, after checking that it has these words."""
    assert command.end() == code, f"{command.out}\n{command.err}"
    assert command.err.endswith("\n")
    assert len(command.err.splitlines()) == 1, command.err
    for words in says:
        assert words in command.err
    assert "Traceback" not in command.out
    return command.err


def eventually(what: str, condition: Callable[[], T], deadline_s: float = LONG) -> T:
    """Return the value of `condition` as soon as it is true."""
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(POLL)
    return value


def restore_interrupts() -> None:
    """Let SIGINT interrupt this process, also where the parent of the tests ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def process_state(pid: int) -> str:
    """Return the state of a process as `ps` prints it, such as `T` for stopped."""
    command = ["ps", "-o", "state=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _main() -> None:
    from cli.main import main

    main()


class Command:
    """A started command."""

    def __init__(self, process: subprocess.Popen[bytes] | BaseProcess, log: Path) -> None:
        self._process = process
        self._log = log
        assert process.pid is not None
        self.pid: int = process.pid

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return self._log.with_suffix(".out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return self._log.with_suffix(".err").read_text(encoding="utf-8")

    @property
    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if isinstance(self._process, BaseProcess):
            return self._process.exitcode
        return self._process.poll()

    def says(self, text: str) -> None:
        """Wait until a text is in its output, on either stream."""
        eventually(f"{text!r} in {self.out}\n{self.err}", lambda: self._has_printed(text))

    def _has_printed(self, text: str) -> bool:
        ended = self.code is not None  # read first: it may print and end between the two
        printed = text in self.out or text in self.err
        assert printed or not ended, f"ended without {text!r}:\n{self.out}\n{self.err}"
        return printed

    def end(self, deadline_s: float = LONG) -> int:
        """Wait until it ends, and return its exit code."""
        eventually(f"end of\n{self.out}\n{self.err}", lambda: self.code is not None, deadline_s)
        assert self.code is not None
        return self.code

    def signal(self, number: signal.Signals) -> None:
        assert self.code is None, f"it has ended:\n{self.out}\n{self.err}"
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
        self.end()


class Commands:
    """Starter of commands in one directory; `close` kills those that still run."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        program: Sequence[str | Path] = (SCRIPT,),
        main: Callable[[], None] = _main,
    ) -> None:
        """Store the arguments.

        Args:
            directory: Working directory of the commands, and the place of their logs.
            environment: Variables of all commands.
            program: Command line of `script`, without the arguments of `fccl`.
            main: Function that `fork` calls in the new process.
        """
        self._directory = directory
        self._program, self._main = program, main
        # A second model in every coordinator would only slow down tests that do not use it.
        self._environment = {"FCCL_SAMPLES__PROMPTS": "0", **environment}
        self._started: list[Command] = []

    def script(self, *args: str, **variables: str) -> Command:
        log = self._log(args)
        environment = os.environ | self._environment | variables
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [*self._program, *args],
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                preexec_fn=restore_interrupts,  # noqa: PLW1509 - calls nothing but signal()
            )
        return self._remember(Command(process, log))

    def fork(self, *args: str, **variables: str) -> Command:
        """Start a command in a process forked from one that has imported all of it."""
        log = self._log(args)
        environment = self._environment | variables
        for stream in (".out", ".err"):
            log.with_suffix(stream).touch()
        process = _forks().Process(
            target=_command,
            args=(self._main, args, self._directory, environment, log),
            daemon=True,
        )
        process.start()
        return self._remember(Command(process, log))

    def close(self) -> None:
        for command in self._started:
            command.kill()

    def _log(self, args: Sequence[str]) -> Path:
        return self._directory / f"{len(self._started):02d}-{args[0].strip('-')}.log"

    def _remember(self, command: Command) -> Command:
        self._started.append(command)
        return command


@contextmanager
def commands(directory: Path, environment: Mapping[str, str]) -> Iterator[Commands]:
    """Yield a starter of commands."""
    place = Commands(directory, environment)
    try:
        yield place
    finally:
        place.close()


def forked(target: Callable[..., object], *args: object) -> int:
    """Run a function in a process of its own; return its exit code, negative for a signal."""
    process = _forks().Process(target=target, args=args, daemon=True)
    process.start()
    process.join(LONG)
    assert process.exitcode is not None, "the process did not end"
    return process.exitcode


def warm() -> None:
    """Wait until the process to fork from has imported everything."""
    assert forked(str) == 0


def _forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    commands = ["cli.demo.command", "cli.run.coordinator", "cli.run.worker", "cli.control.status"]
    context.set_forkserver_preload(
        [*commands, "cli.demo.federation", "cli.run.local_tasks"]
    )  # which imports all the rest
    return context


def _command(
    main: Callable[[], None],
    args: Sequence[str],
    directory: Path,
    environment: dict[str, str],
    log: Path,
) -> None:
    for number, stream in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(log.with_suffix(stream), os.O_WRONLY | os.O_APPEND), number)
    os.chdir(directory)
    os.environ.update(environment)
    restore_interrupts()
    sys.argv = ["fccl", *args]
    if args[0] == "coordinator":
        forked_children.install()
    main()
