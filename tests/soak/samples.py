"""Samples of what processes, servers and directories use while a federation runs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import httpx
import psutil

from common.store.store import Store

MIB = 1 << 20
RABBITMQ_USER = ("guest", "guest")


@dataclass(frozen=True)
class Watched:
    """What a soak measures.

    Args:
        processes: Process ids by the name that they have in the table.
        directories: Directories and files by name.
        management: URL of RabbitMQ's management API.
    """

    processes: Mapping[str, int]
    directories: Mapping[str, Path]
    management: str
    store: Store


def sample(watched: Watched, started: float) -> dict[str, float]:
    """Return one value for each quantity: memory and disk in MiB, all others are counts."""
    values = {"seconds": time.monotonic() - started}
    for name, pid in watched.processes.items():
        values |= {f"{name}: {key}": value for key, value in _process(pid).items()}
    for name, directory in watched.directories.items():
        values[f"{name}: disk"] = _bytes(directory) / MIB
    return values | _rabbitmq(watched.management) | _redis(watched.store)


def write(file: TextIO, values: Mapping[str, float]) -> None:
    file.write(json.dumps(values) + "\n")
    file.flush()


def _process(pid: int) -> dict[str, float]:
    """Return what a process uses; memory is what it would free if it ended."""
    process = psutil.Process(pid)
    return {
        "memory": process.memory_full_info().uss / MIB,
        "files": process.num_fds(),
        "threads": process.num_threads(),
    }


def _bytes(path: Path) -> int:
    """Return the size of a file or of all files under a directory; they may vanish meanwhile."""
    total = path.stat().st_size if path.is_file() else 0
    for folder, _, names in os.walk(path):  # which passes over directories that have vanished
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total


def _rabbitmq(management: str) -> dict[str, float]:
    with httpx.Client(base_url=management, auth=RABBITMQ_USER, timeout=20.0) as client:
        overview = client.get("/api/overview").raise_for_status().json()
        node = client.get("/api/nodes").raise_for_status().json()[0]
        users = client.get("/api/users").raise_for_status().json()
    totals = overview["object_totals"]
    counts = {key: totals[key] for key in ("queues", "exchanges", "connections", "channels")}
    ready = overview.get("queue_totals", {}).get("messages", 0)
    return {
        "RabbitMQ: memory": node["mem_used"] / MIB,
        "RabbitMQ: files": node["fd_used"],
        "RabbitMQ: messages": ready,
        "RabbitMQ: users": len(users),
        **{f"RabbitMQ: {key}": value for key, value in counts.items()},
    }


def _redis(store: Store) -> dict[str, float]:
    fields: dict[str, object] = {}
    for section in ("memory", "clients"):
        text = store.execute("INFO", section)
        fields |= dict(text) if isinstance(text, dict) else {}
    return {
        "Redis: memory": int(str(fields["used_memory"])) / MIB,
        "Redis: connections": int(str(fields["connected_clients"])),
        "Redis: keys": int(store.execute("DBSIZE")),
    }
