"""What the terminal UI costs while it shows 1,000 clients, read and drawn twice a second.

python -m benchmarks.tui

The app runs in a terminal of its own (a pty, 120 x 40), reads what a store would send with the feed
that `fccl tui` uses, and decodes and draws it. A tenth of the clients change from look to look. Not
counted: Redis, and the terminal that shows what is written.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any, cast

from common.protocol.feed import Event
from common.protocol.updates import ContributionStats
from common.protocol.versions import UpdateSummary, VersionSummary
from common.protocol.wire import pack
from common.store.store import Store
from common.store.view import ClientRow, RunInfo
from tui.app import PANES, MonitorApp
from tui.data.reader import ReaderThread

CLIENTS, VERSIONS, EVENTS = 1000, 1000, 500
WARM_UP_S, SECONDS = 3.0, 20.0
LINES, COLUMNS = 40, 120


class Frames:
    """The answers of a store that holds a large run, which goes on a little at every look."""

    where = "memory"

    def __init__(self) -> None:
        self._looks = 0
        self._clients = {_name(i): _client(i, 0) for i in range(CLIENTS)}
        self._summaries = {str(v).encode(): _summary(v) for v in range(VERSIONS)}
        self._events = [_event(i) for i in range(EVENTS)]

    def get_run(self, name: str) -> str:
        """Its id."""
        return name

    def heartbeats(self, run: str) -> tuple[()]:
        """None."""
        return ()

    def read(self, run: str, events: int) -> dict[str, Any]:
        """Everything as raw bytes, newest event first."""
        self._looks += 1
        for i in range(self._looks % 10, CLIENTS, 10):
            self._clients[_name(i)] = _client(i, self._looks)
        self._events = [*self._events[1:], _event(EVENTS + self._looks)]
        return {
            "info": pack(_info(self._looks)),
            "version": b"999",
            "clients": dict(self._clients),
            "queues": {},
            "summaries": self._summaries,
            "samples": {},
            "events": self._events[::-1][:events],
        }


def _name(i: int) -> bytes:
    return f"client_{i:04}".encode()


def _client(i: int, looks: int) -> bytes:
    row = ClientRow(
        client_id=_name(i).decode(),
        site=f"site-{i % 10}",
        rows=100 + i,
        issued=looks,
        participation=looks,
        task_id=f"t{looks}",
        base_version=990,
        staleness=looks % 10,
        last_loss=2.0 + (i + looks) % 100 / 100,
        weight=0.1,
    )
    return pack(row)


def _event(i: int) -> tuple[bytes, dict[bytes, bytes]]:
    client = f"client_{i % CLIENTS:04}"
    event = Event(
        at=float(i), level="info", kind="accepted", text=f"{client} did", refs={"client": client}
    )
    return f"{i + 1}-0".encode(), {b"e": pack(event)}


def _summary(version: int) -> str:
    update = UpdateSummary(
        task_id=f"t{version}", client_id=f"client_{version % CLIENTS:04}", worker_id="w",
        base_version=max(0, version - 1), staleness=1, score=1.0, weight=1.0,
        staleness_factor=0.7, participation_factor=1.0, clip=1.0, coefficient=0.7, nbytes=1000,
        stats=ContributionStats(
            num_samples=10, num_tokens=100, steps=5, avg_loss=2.0, loss_before=2.1,
            loss_after=1.9, delta_norm=1.0, train_seconds=1.0,
        ),
    )  # fmt: skip
    summary = VersionSummary(
        version=version, phase=0, at=float(version), sha256="0" * 64, nbytes=1000,
        train_loss=2.0, updates=(update,),
    )  # fmt: skip
    return summary.model_dump_json()


def _info(looks: int) -> RunInfo:
    return RunInfo(
        run="r", name="r", status="running", detail="1000 of 1000 clients served", version=999,
        total_versions=2000, phase=0, phases=("sft",), clients=CLIENTS, buffered=1, buffer_size=2,
        open_tasks=CLIENTS, accepted=looks, rejected=0, started_at=1.0, updated_at=float(looks),
        max_staleness=20,
    )  # fmt: skip


def _child(pane: str, seconds: float, result: Path) -> None:
    """Run in the terminal, and write the seconds that went by and that were computed."""
    reader = ReaderThread(lambda: cast(Store, Frames()), "r")
    app = MonitorApp(reader)

    def ready() -> None:
        app.action_tab(pane)
        app.set_timer(WARM_UP_S, begin)

    def begin() -> None:
        if reader.latest().state != "live":  # an empty screen costs nothing
            app.exit(return_code=1, message=f"nothing is shown: {reader.latest()}")
            return
        wall, used = time.monotonic(), time.process_time()

        def end() -> None:
            figures = (time.monotonic() - wall, time.process_time() - used)
            result.write_text(json.dumps(figures))
            app.exit()

        app.set_timer(seconds, end)

    app.call_later(ready)
    app.run()
    sys.exit(app.return_code)


def measure(pane: str, seconds: float) -> float:
    """Return the share of one core that showing a pane takes."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory() as place:
        result = Path(place) / "result"
        words = ["-m", "benchmarks.tui", "--pane", pane, "--seconds", str(seconds)]
        child = subprocess.Popen(
            [sys.executable, *words, "--child", str(result)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        os.close(slave)
        _drain(master)
        if child.wait() != 0 or not result.exists():
            sys.exit(f"the app ended with {child.returncode}")
        wall, used = json.loads(result.read_text())
    return used / wall


def _drain(terminal: int) -> None:
    """Take what is written, as a terminal does, until nobody writes any more."""
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(terminal)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.tui")
    parser.add_argument("--pane", action="append", choices=tuple(PANES))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.pane[0], options.seconds, options.child)
        return
    panes = options.pane or ["clients", "overview"]
    print("python -m benchmarks.tui", *(f"--pane {pane}" for pane in panes))
    print(f"| {CLIENTS} clients, {VERSIONS} versions, {EVENTS} events, at 2 Hz | of one core |")
    print("| --- | --- |")
    for pane in panes:
        print(f"| {pane} | {measure(pane, options.seconds):.1%} |", flush=True)


if __name__ == "__main__":
    main()
