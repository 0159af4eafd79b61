"""The federation in a process of its own, behind the screen of `fccl demo`.

Standard output carries messages (`cli/child_messages.py`). Everything that libraries print goes to
standard error, and from the start of the run to RUN/demo.log, so that nothing is printed over the
screen. Standard input stays open as long as the process with the screen lives (`Lifeline`).
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import traceback
from pathlib import Path

from cli import expected_errors
from cli.child_messages import MessageKind, MessageOutput
from cli.exit_codes import INTERRUPTED
from cli.jsonlog import JsonLog
from common.config.config import FederationConfig
from common.errors import FcclError

LOG = "demo.log"  # in the run directory: what libraries print while the screen is open
STDIN, STDOUT, STDERR = 0, 1, 2
WAIT_S = 0.5
# Undoes what a screen may have set: mouse, focus, paste and key reports, the cursor, the alternate
# screen, colours.
RESTORE = (
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?1004l\x1b[?2004l"
    b"\x1b[?2048l\x1b[<u\x1b[?25h\x1b[?1049l\x1b[0m"
)
SCREEN_KILLED = (
    b"\r\nfccl demo: the screen was killed; the run ends cleanly, continue with --resume\r\n"
)


class Lifeline:
    """Watches standard input for the end of the process with the screen.

    That process writes a byte before it closes the pipe. If the pipe ends without one, the process
    was killed: then its terminal is restored. An unfinished run is stopped in both cases.
    """

    def __init__(self, output: MessageOutput, terminal: str) -> None:
        self._output, self._terminal = output, terminal
        self._finished = threading.Event()
        self._released = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def started(self, url: str, directory: Path) -> None:
        """Redirect what libraries print, and tell the other process where the run can be read."""
        log = os.open(directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sys.stderr.flush()
        os.dup2(log, STDERR)
        os.dup2(log, STDOUT)
        os.close(log)
        self._output.send(MessageKind.STARTED, url=url, directory=str(directory))

    def finished(self, summary: str) -> None:
        """Send the summary, and wait until the screen is closed, which reads this store."""
        self._finished.set()
        self._output.send(MessageKind.FINISHED, summary)
        while not self._released.wait(WAIT_S):
            pass  # wakes up to handle a signal that another thread received

    def _watch(self) -> None:
        # os.read, not sys.stdin: an interpreter that ends while a thread waits for that one aborts.
        if not os.read(STDIN, 1):
            _restore(self._terminal)
        self._released.set()
        if not self._finished.is_set():
            os.kill(os.getpid(), signal.SIGINT)


def run_child(config: FederationConfig, mode: str, terminal: str) -> int:
    """Run the federation behind a screen on `terminal` (a path), and return the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored by a parent
    output = MessageOutput(JsonLog(os.fdopen(os.dup(STDOUT), "w", encoding="utf-8"), "demo"))
    os.dup2(STDERR, STDOUT)
    sys.stdout = sys.stderr
    lifeline = Lifeline(output, terminal)
    lifeline.start()
    try:
        from cli.demo.federation import run_federation  # loads torch

        return run_federation(config, mode, output, lifeline)
    except FcclError as error:
        line, code = f"fccl: {error}", error.exit_code
    except KeyboardInterrupt:
        line, code = "fccl: interrupted", INTERRUPTED
    except BaseException as error:
        if (expected := expected_errors.translate(error)) is not None:
            line, code = f"fccl: {expected}", expected.exit_code
        else:
            traceback.print_exc()
            line, code = f"fccl: {type(error).__name__}: {error}", 1
    output.send(MessageKind.ERROR, line)
    return code


def _restore(path: str) -> None:
    """Reset a terminal whose screen was killed."""
    try:
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    except OSError:  # the terminal is gone as well
        return
    try:
        modes = termios.tcgetattr(terminal)
        modes[0] |= termios.ICRNL | termios.IXON
        modes[1] |= termios.OPOST
        modes[3] |= termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        os.write(terminal, RESTORE + SCREEN_KILLED)
    except (OSError, termios.error):
        pass
    finally:
        os.close(terminal)
