"""Directory of a small recorded run: two clients, two versions, one rejection, 100 to 140 s."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from common.files import append_jsonl
from coordinator.storage.journal_schema import ADDED_TABLES, SCHEMA
from tests.support.tui.builders import sample, update, version

STATS = {
    "num_samples": 10,
    "num_tokens": 400,
    "steps": 5,
    "loss_before": 2.1,
    "loss_after": 1.9,
    "train_seconds": 8.0,
    "delta_norm": 1.0,
}
CONFIG = """
[run]
name = "mine"
[schedule]
concurrency = 2
buffer_size = 1
[[phase]]
objective = "sft"
versions = 1
[[phase]]
objective = "dpo"
versions = 1
"""
TASKS = [  # task, client, attempts of (base version, issued at)
    ("t1", "a", [(0, 100.0)]),
    ("t2", "b", [(0, 100.0), (1, 115.0)]),
    ("t3", "a", [(1, 110.0)]),
]
EVENTS = [
    (100.0, "info", "issued", "t1 to a from version 0", {"task": "t1", "client": "a"}),
    (110.0, "info", "version", "version 1: fine", {"version": 1}),
    (120.0, "warning", "rejected", "update of b rejected: stale", {"client": "b", "task": "t2"}),
    (140.0, "info", "finished", "the plan is complete", {}),
]


def record(directory: Path) -> Path:
    directory.mkdir()
    (directory / "federation.toml").write_text(CONFIG)
    db = sqlite3.connect(directory / "run.db")
    db.executescript(SCHEMA + " ".join(ADDED_TABLES))
    clients = {"a": {"sft": 7, "va": 3}}
    base = {"name": "offline:gpt2-tiny", "kind": "offline", "digest": "0" * 64}
    meta = {
        "run_id": "mine-1",
        "software": "fccl 0",
        "base": json.dumps(base),
        "clients": json.dumps(clients),
        "labels": "[]",
        "sources": "{}",
        "adapter_config": "{}",
    }
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    db.execute("INSERT INTO member VALUES ('b', 'far', '{\"sft\": 5}', 0)")
    for task, client, attempts in TASKS:
        db.execute("INSERT INTO task VALUES (?, ?, 0, 1, 0)", (task, client))
        for number, (base, at) in enumerate(attempts, 1):
            db.execute("INSERT INTO attempt VALUES (?, ?, ?, ?, 1)", (task, number, base, at))
    for task, client, at, loss, number in (("t1", "a", 110.0, 2.0, 1), ("t3", "a", 130.0, 1.5, 2)):
        stats = json.dumps({**STATS, "avg_loss": loss})
        row = (task, client, number - 1, stats, task, at, number)
        db.execute(
            "INSERT INTO accepted (task_id, attempt, client_id, worker_id, base_version, stats,"
            " norm, clip, nbytes, upload, at, version)"
            " VALUES (?, 1, ?, 'w', ?, ?, 1, 1, 9, ?, ?, ?)",
            row,
        )
        db.execute("INSERT INTO receipt VALUES (?, 1, 'accepted', '', ?)", (task, at))
        applied = update(client, task_id=task, weight=1.0)
        summary = version(number, applied, at=at, phase=number - 1)
        db.execute("INSERT INTO version VALUES (?, ?)", (number, summary.model_dump_json()))
    start = version(0, at=99.0, train_loss=None).model_dump_json()
    db.execute("INSERT INTO version VALUES (0, ?)", (start,))
    db.execute("INSERT INTO receipt VALUES ('t2', 1, 'rejected', 'stale', 120.0)")
    for at, level, kind, text, refs in EVENTS:
        row = (at, level, kind, text, json.dumps(refs))
        db.execute("INSERT INTO event (at, level, kind, text, refs) VALUES (?, ?, ?, ?, ?)", row)
    lines = [sample(v, at=at).fields() for v, at in ((0, 102.0), (1, 112.0), (2, 140.0))]
    append_jsonl(directory / "samples.jsonl", lines)
    db.commit()
    db.close()
    return directory
