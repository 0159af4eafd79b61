"""Program of a child process: `python -m cli.run.child_main TASK`.

The first line of standard input is the request; further lines are commands to the task. Standard
output is for messages alone: what libraries print becomes a message too (`cli/jsonlog.py`). When
standard input ends, the coordinator closes the child or has died: the task is interrupted like by a
Ctrl-C, so that it cleans up behind itself.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from cli import jsonlog
from cli.jsonlog import JsonLog
from cli.main import INTERRUPTED
from common.errors import FcclError

INTERRUPTED_S = 3.0  # for a task that was interrupted to clean up behind itself

Commands = queue.Queue[dict[str, Any]]


def main(task: str) -> None:
    """Perform a task and end the process."""
    log = _take_over_streams()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent under nohup ignores it
    commands: Commands = queue.Queue()
    request = json.loads(sys.stdin.buffer.readline())
    main_thread = threading.get_ident()
    reader = threading.Thread(target=_read_commands, args=(commands, main_thread), daemon=True)
    reader.start()
    code = 0
    try:
        # Imported here: the lines above take no time, so that an early close ends the import.
        from cli.run import child_tasks  # noqa: PLC0415

        result = child_tasks.TASKS[task](request, log, commands)
        log.write("info", "result", "", {"result": result})
    except FcclError as error:
        more = {"error": type(error).__name__, "what": error.what, "remedy": error.remedy}
        log.write("error", "error", str(error), more)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as error:
        jsonlog.write_crash(error)
        code = 1
    # Not sys.exit: threads and atexit handlers of libraries can take seconds, or hang.
    os._exit(code)


def _take_over_streams() -> JsonLog:
    """Keep standard output for messages; whatever else writes to it goes to standard error."""
    messages = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = os.fdopen(messages, "w", encoding="utf-8")
    return jsonlog.install("child")


def _read_commands(commands: Commands, main_thread: int) -> None:
    """Queue commands until standard input ends; then interrupt the task."""
    # os.read, not sys.stdin: an interpreter that ends while a thread waits for that one aborts.
    rest = b""
    while block := _read_block():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            commands.put(json.loads(line))
    signal.pthread_kill(main_thread, signal.SIGINT)
    time.sleep(INTERRUPTED_S)
    os._exit(INTERRUPTED)


def _read_block() -> bytes:
    try:
        return os.read(0, 4096)
    except OSError:
        return b""


if __name__ == "__main__":
    main(sys.argv[1])
