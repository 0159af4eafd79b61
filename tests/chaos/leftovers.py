"""What a finished federation may not leave behind: files, queues, processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pika
from pika.exceptions import ChannelClosedByBroker

from broker.protocol import LOCAL, Topology
from tests.chaos.small_disk import FILLER

VARIABLE = "FCCL_CHAOS"
"""Variable in the environment of the processes of a federation: its directory."""
GONE_S = 10.0


def leftover_files(run: Path, states: Sequence[Path]) -> Iterator[str]:
    """Yield temporary files, and uploads in the spool of the coordinator."""
    for root in (run.parent, *states):
        for path in root.rglob("*"):
            name = path.name
            temporary = name.startswith((".made-", ".tmp-")) or name.endswith((".tmp", ".partial"))
            if temporary or name == FILLER:
                yield f"temporary file {path}"
    yield from (f"upload in the spool: {path}" for path in (run / "spool").glob("*"))


def leftover_work(state: Path) -> Iterator[str]:
    """Yield tasks and answers in the slots of workers, and residuals of unfinished ones."""
    for slot in state.glob("*/slots/*"):
        for name in ("task", "updates/*", "results/*", "crashes"):
            yield from (f"in a worker's slot: {path}" for path in slot.glob(name))
    yield from (f"residual: {path}" for path in state.glob("*/clients/*/residual.[0-9]*"))


def leftover_queues(url: str, run_id: str) -> Iterator[str]:
    """Yield the queues of a run that still exist, and the number of its dead letters."""
    topology = Topology(run_id)
    names = (topology.task_queue(LOCAL), topology.update_queue(LOCAL), topology.dead_queue)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for name in names:
            channel = connection.channel()
            try:
                found = channel.queue_declare(name, passive=True)
            except ChannelClosedByBroker:
                continue
            yield f"queue {name} with {found.method.message_count} messages"


def leftover_processes(directory: Path) -> list[str]:
    """Return the coordinators of a federation, and their children, that still run after a while."""
    deadline = time.monotonic() + GONE_S
    while found := list(_processes(directory)):
        if time.monotonic() > deadline:
            return [f"process {pid}: {_command_line(pid)}" for pid in found]
        time.sleep(0.1)
    return []


def _processes(directory: Path) -> Iterator[int]:
    mark = f"{VARIABLE}={directory}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                yield int(path.name)
        except OSError:  # it has ended, or is another user's
            continue


def _command_line(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "ended"
    return text.replace(b"\0", b" ").decode(errors="replace")[:300]
