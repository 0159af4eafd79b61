"""Log lines as JSON, one object per line, for tools that collect the output of containers.

The log replaces the process's two output streams, so that what libraries, warnings and signal
handlers print becomes an object, too. Only what C code writes to a descriptor is not caught.
"""

from __future__ import annotations

import io
import json
import logging
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

_CREDENTIALS = re.compile(r"(?<=://)\S*(?=@)|(?<=password=)[^\s&]+")


class JsonLog:
    """A writer of JSON lines to one stream. Methods may be called from any thread."""

    def __init__(self, stream: TextIO, component: str) -> None:
        self._stream = stream
        self._lock = threading.RLock()  # a signal handler may interrupt its own thread
        self._context: dict[str, object] = {"component": component}

    def set_context(self, **names: object) -> None:
        """Add keys, such as the run and the worker, to every line from now on."""
        self._context |= names

    def write(
        self,
        level: str,
        kind: str,
        message: str,
        fields: Mapping[str, object] | None = None,
        at: float | None = None,
    ) -> None:
        """Write one line.

        Args:
            kind: What happened, in a word.
            message: For people; passwords in URLs are masked.
            fields: Further keys, which do not replace those of the line itself.
            at: Seconds since the Unix epoch; None for now.
        """
        when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        entry = {
            "ts": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "kind": kind,
            "message": _CREDENTIALS.sub("***", message),
        }
        line = json.dumps({**entry, **self._context, **(fields or {}), **entry})
        with self._lock:
            # One call, so that lines of several threads and processes do not mix.
            self._stream.write(line + "\n")
            self._stream.flush()


class JsonStream(io.TextIOBase):
    """A text stream that writes every line to a `JsonLog`."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, log: JsonLog, level: str, kind: str) -> None:
        super().__init__()
        self.log = log
        self._level, self._kind = level, kind
        self._lock = threading.RLock()
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write the complete lines; of one that is redrawn (a progress bar), the last state."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            self._begun = self._begun.rpartition("\r")[2]
        for line in lines:
            if text_line := line.rstrip("\r").rpartition("\r")[2].rstrip():
                self.log.write(self._level, self._kind, text_line)
        return len(text)


class ErrorHandler(logging.Handler):
    """A handler that writes a logged error with its traceback as one line of the `JsonLog`."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            write_crash(error)


def install_if_requested() -> None:
    """Install the log if the environment requests it, so that even a usage error is JSON."""
    component = sys.argv[1] if len(sys.argv) > 1 else ""
    if os.environ.get(VARIABLE) == "json" and component in COMPONENTS:
        install(component)


def install(component: str) -> JsonLog:
    """Write every line of this process as JSON; repeating it is harmless."""
    if isinstance(sys.stdout, JsonStream):
        return sys.stdout.log
    log, errors = JsonLog(sys.stdout, component), JsonLog(sys.stderr, component)
    errors._context = log._context  # both name the same run
    sys.stdout = JsonStream(log, "info", "stdout")
    sys.stderr = JsonStream(errors, "warning", "stderr")
    logging.getLogger("fccl").addHandler(ErrorHandler())
    sys.excepthook = lambda kind, error, trace: write_crash(error)
    threading.excepthook = lambda args: write_crash(args.exc_value) if args.exc_value else None
    return log


def write_error(message: str, code: int) -> bool:
    """Write why the process ends; return False if the log is not installed."""
    if not isinstance(sys.stderr, JsonStream):
        return False
    sys.stderr.log.write("error", "error", message, {"exit_code": code})
    return True


def write_crash(error: BaseException) -> None:
    """Write an uncaught error, with the traceback in the same line if it was not expected."""
    if isinstance(sys.stderr, JsonStream):
        trace = _CREDENTIALS.sub("***", "".join(traceback.format_exception(error)))
        message = f"{type(error).__name__}: {error}"
        fields = {} if isinstance(error, FcclError) else {"traceback": trace}
        sys.stderr.log.write("error", "crash", message, fields)
