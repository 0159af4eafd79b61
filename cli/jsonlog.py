"""Log lines as JSON: one object a line, for whatever collects the output of a container.

Installed in place of the process's two streams, so that what libraries, warnings and signal
handlers print is an object, too. Only what C code writes straight to a descriptor passes by.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from common.errors import FcclError

VARIABLE = "FCCL_OPERATIONS__LOG"
COMPONENTS = ("coordinator", "worker")

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@]*(?=@)|(?<=password=)[^\s&]+")


class JsonLog:
    """Writes objects to one stream. Methods may be called from any thread."""

    def __init__(self, stream: TextIO, component: str) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a signal handler may interrupt its own thread
        self._context: dict[str, object] = {"component": component}

    def set_context(self, **names: object) -> None:
        """Name the run, the worker … in every line from now on."""
        self._context |= names

    def write(
        self,
        level: str,
        kind: str,
        message: str,
        more: Mapping[str, object] | None = None,
        at: float | None = None,
    ) -> None:
        """One line.

        Args:
            level: info, warning or error.
            kind: What it is about, in a word.
            message: For people; a password in a URL is left out.
            more: Further keys; those of the line itself win.
            at: Seconds since the epoch; now, if left out.
        """
        when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        entry = {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "kind": kind,
            "message": _CREDENTIALS.sub("***", message),
        }
        line = json.dumps({**entry, **self._context, **(more or {}), **entry})
        with self._lock:
            # One call: lines of several threads and processes do not mix.
            self._stream.write(line + "\n")
            self._stream.flush()


class JsonStream(io.TextIOBase):
    """A text stream whose every line becomes an object."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, log: JsonLog, level: str, kind: str) -> None:
        super().__init__()
        self.log = log
        self._level, self._kind = level, kind
        self._lock = threading.RLock()
        self._begun = ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Write what is complete; of a line that is drawn anew (a progress bar), the last state."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            self._begun = self._begun.rpartition("\r")[2]
        for line in lines:
            if shown := line.rstrip("\r").rpartition("\r")[2].rstrip():
                self.log.write(self._level, self._kind, shown)
        return len(text)


def install_if_requested() -> None:
    """Install it where the environment asks for it: then even a wrong option is told so."""
    component = sys.argv[1] if len(sys.argv) > 1 else ""
    if os.environ.get(VARIABLE) == "json" and component in COMPONENTS:
        install(component)


def install(component: str) -> JsonLog:
    """Make every line of this process an object; again is harmless."""
    if isinstance(sys.stdout, JsonStream):
        return sys.stdout.log
    log, errors = JsonLog(sys.stdout, component), JsonLog(sys.stderr, component)
    errors._context = log._context  # both name the same run
    sys.stdout = JsonStream(log, "info", "stdout")
    sys.stderr = JsonStream(errors, "warning", "stderr")
    sys.excepthook = lambda kind, error, trace: write_crash(error)
    threading.excepthook = lambda args: write_crash(args.exc_value) if args.exc_value else None
    return log


def write_error(message: str, code: int) -> bool:
    """Tell why the process ends; False where lines are not JSON."""
    if not isinstance(sys.stderr, JsonStream):
        return False
    sys.stderr.log.write("error", "error", message, {"exit_code": code})
    return True


def write_crash(error: BaseException) -> None:
    """Tell of an error that nobody expected, with its traceback in the same line."""
    if isinstance(sys.stderr, JsonStream):
        trace = _CREDENTIALS.sub("***", "".join(traceback.format_exception(error)))
        message = f"{type(error).__name__}: {error}"
        expected = isinstance(error, FcclError)
        more = {} if expected else {"traceback": trace}
        sys.stderr.log.write("error", "crash", message, more)
