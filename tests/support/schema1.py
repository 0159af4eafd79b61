"""Frames of schema 1 as the release before schema 2 wrote and read them.

They are made without `common.protocol`, so that tests of upgrades do not compare the code with
itself. Tensors are fp32.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

PREFIX = struct.Struct("<4sBI")
FIELDS = {
    "TrainTask": (
        "task_id", "attempt", "run", "client_id", "phase", "objective", "training", "base",
        "base_version", "adapter", "lora", "dpo", "reference", "labels", "update_codec", "seed",
        "issued_at", "deadline_s",
    ),
    "Update": (
        "task_id", "attempt", "client_id", "worker_id", "phase", "base_version", "stats", "codec",
        "tensors", "sha256",
    ),
    "Adapter": ("version", "codec", "tensors"),
    "CurrentModel": (
        "run", "version", "phase", "objective", "base", "adapter", "lora", "max_length", "dpo",
        "labels",
    ),
    "RunInfo": (
        "run", "name", "status", "detail", "version", "total_versions", "phase", "phases",
        "phase_ends", "clients", "buffered", "buffer_size", "open_tasks", "accepted", "rejected",
        "started_at", "updated_at", "max_staleness", "software",
    ),
}  # fmt: skip
"""All fields that the older release knew, in its order; it refused others."""

Tensors = Mapping[str, np.ndarray[Any, Any]]


def frame(kind: str, fields: Mapping[str, Any], data: bytes = b"") -> bytes:
    header = msgpack.packb([kind, {name: fields[name] for name in FIELDS[kind]}])
    return PREFIX.pack(b"FCCL", 1, len(header)) + header + data


def read(content: bytes) -> tuple[str, dict[str, Any], bytes]:
    """Return kind, fields and data, as the older release read a frame; fail where it failed."""
    magic, schema, length = PREFIX.unpack_from(content)
    assert (magic, schema) == (b"FCCL", 1)
    end = PREFIX.size + length
    kind, fields = msgpack.unpackb(content[PREFIX.size : end])
    assert fields.keys() == set(FIELDS[kind])
    return kind, fields, content[end:]


def encode(tensors: Tensors) -> tuple[list[dict[str, Any]], bytes]:
    """Return the table and the payloads of tensors."""
    table, data = [], b""
    for name, tensor in sorted(tensors.items()):
        payload = tensor.astype("<f4").tobytes()
        entry = {"name": name, "shape": list(tensor.shape)}
        table.append(entry | {"offset": len(data), "nbytes": len(payload)})
        data += payload
    return table, data


def decode(table: list[dict[str, Any]], data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    return {
        each["name"]: np.frombuffer(
            data[each["offset"] : each["offset"] + each["nbytes"]], "<f4"
        ).reshape(each["shape"])
        for each in table
    }


def adapter(version: int, tensors: Tensors) -> bytes:
    table, data = encode(tensors)
    return frame("Adapter", {"version": version, "codec": "fp32", "tensors": table}, data)


def update(task: Mapping[str, Any], stats: Mapping[str, Any], delta: Tensors) -> bytes:
    """Return the answer of a worker of the older release to a task."""
    table, data = encode(delta)
    fields = {**task, "worker_id": "old", "stats": dict(stats), "codec": "fp32", "tensors": table}
    return frame("Update", fields | {"sha256": hashlib.sha256(data).hexdigest()}, data)


def begin_run(directory: Path, tensors: Tensors) -> None:
    """Turn a run directory at version 0 into one that the older release began."""
    with closing(sqlite3.connect(directory / "run.db")) as db, db:
        db.execute("DELETE FROM meta WHERE key IN ('layout', 'prompt')")
        content = adapter(0, tensors)
        changed = "json_set(summary, '$.sha256', ?, '$.nbytes', ?)"
        digest = hashlib.sha256(content).hexdigest()
        db.execute(f"UPDATE version SET summary = {changed}", (digest, len(content)))
