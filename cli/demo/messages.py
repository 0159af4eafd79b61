"""A federation whose screen is another process's: it tells that one what it would have printed.

Standard output is then for objects (`cli/jsonlog.py`), and standard input says whether the other
process, which `cli/demo/terminal.py` is, still lives: its end asks for what a Ctrl-C asks for.
"""

from __future__ import annotations

import os
import signal
import termios
import threading
from pathlib import Path

from cli import jsonlog
from cli.console import Output
from common.protocol.feed import Event

NAME = "demo"
VIEW, LINES = "view", "lines"
"""What standard input may say: that a view holds the terminal of this path, or holds it no more."""

STDIN = 0
WAIT_S = 0.5
# Of whatever a view may have asked of the terminal: the mouse, focus, paste, keys, the cursor, and
# the other screen.
RESTORE = (
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?1004l\x1b[?2004l"
    b"\x1b[?2048l\x1b[<u\x1b[?25h\x1b[?1049l\x1b[0m"
)
LEFT = b"\r\nfccl demo: the view was killed; the run ends cleanly, go on with --resume\r\n"


class Telling(Output):
    """One object for each thing to say."""

    def __init__(self) -> None:
        self._objects = jsonlog.install(NAME)
        super().__init__(plain=True, log=self._objects)
        self._percent: tuple[str, int] = ("", -1)
        self._ended = threading.Event()
        self._released = threading.Event()
        threading.Thread(target=self._attend, name="lifeline", daemon=True).start()

    def print_event(self, event: Event) -> None:
        """One event of the feed, whole."""
        self._objects.write(event.level, "event", event.text, {"event": event.fields()})

    def progress(self, message: str, fraction: float) -> None:
        """Progress, in percent."""
        percent = int(fraction * 100)
        if self._percent != (message, percent):
            self._percent = (message, percent)
            self._objects.write("info", "progress", message, {"progress": percent / 100})

    def end_progress(self) -> None:
        """Nothing more of that progress."""
        self._objects.write("info", "progressed", "")

    def print_markdown(self, text: str) -> None:
        """A Markdown text."""
        self._objects.write("info", "document", text)

    def announced(self, url: str, directory: Path) -> None:
        """The run can be watched."""
        more = {"directory": str(directory)}
        self._objects.write("info", "announced", url, more)

    def ended(self, summary: str) -> None:
        """The run is over; returns when nobody wants to look at it any more.

        Args:
            summary: Figures and files, for a line.
        """
        self._ended.set()
        self._objects.write("info", "ended", summary)
        while not self._released.wait(WAIT_S):
            pass  # awake now and then: a signal that another thread took is handled here

    def _attend(self) -> None:
        terminal = ""
        # No `sys.stdin`: an interpreter that ends while a thread waits for that one aborts.
        while line := os.read(STDIN, 4096):  # whole lines: they are short, and one at a time
            word, _, path = line.decode().splitlines()[-1].partition(" ")
            terminal = path if word == VIEW else ""
        if terminal:  # it had no time to tidy up
            _restore(terminal)
        self._released.set()
        if not self._ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)


def _restore(path: str) -> None:
    """Make a terminal usable that a view has left as it was."""
    try:
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    except OSError:  # it is gone as well
        return
    try:
        modes = termios.tcgetattr(terminal)
        modes[0] |= termios.ICRNL | termios.IXON
        modes[1] |= termios.OPOST
        modes[3] |= termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        os.write(terminal, RESTORE + LEFT)
    except (OSError, termios.error):
        pass
    finally:
        os.close(terminal)
