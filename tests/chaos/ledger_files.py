"""What the ledger checker reads: a run directory, and the records of workers, by documented names.

The formats are those of docs/protocol.md and docs/operations.md; nothing is parsed by the code
that has written it.
"""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
from safetensors.numpy import load_file

from tests.chaos.ledger_arithmetic import Tensors, sha256

Row = Mapping[str, Any]
ANY = 0
"""Attempt of a receipt that does not say it."""


@dataclass(frozen=True)
class Frame:
    """An update as its worker framed it."""

    header: Row
    payload: bytes
    sha256: str


def read_frame(path: Path) -> Frame:
    """Parse an update; raise `ValueError` if the file is no frame of one."""
    data = path.read_bytes()
    if data[:4] != b"FCCL":
        raise ValueError(f"{path} is not a frame")
    _, length = struct.unpack_from("<BI", data, 4)
    kind, header = msgpack.unpackb(data[9 : 9 + length])
    if kind != "Update":
        raise ValueError(f"{path} holds {kind}")
    return Frame(header, data[9 + length :], sha256(data))


# The coordinator's account


@dataclass(frozen=True)
class RunFiles:
    """A run directory as it was read at once.

    Attributes:
        versions: Summary of each version, in the order of the rows.
        accepted: Accepted updates, in the order of acceptance.
        phases: Phase of each training task.
        open_tasks: Training tasks without a receipt.
        receipts: Attempt and state of each closed training task.
        rows: Training rows of the clients that the coordinator dealt them to, by kind.
        kept: File in `updates/` of each kept update, by task.
        scores: Measure of each update that has one, by task.
        uploads: Uploads of which only some chunks have arrived.
    """

    directory: Path
    run_id: str
    has_layout: bool
    config: Row
    weights: str
    versions: list[Row]
    accepted: list[Row]
    phases: Mapping[str, int]
    open_tasks: list[str]
    receipts: Mapping[str, tuple[int, str]]
    rows: Mapping[str, Mapping[str, int]]
    kept: Mapping[str, str]
    scores: Mapping[str, float]
    uploads: set[str]

    def version_path(self, version: int) -> Path:
        return self.directory / "versions" / f"{version:06d}" / self.weights

    def tensors(self, version: int) -> Tensors | None:
        """Return the tensors of a version; None if it is not on the disk."""
        path = self.version_path(version)
        return dict(load_file(path)) if path.parent.is_dir() else None

    def lines(self, name: str) -> list[Row]:
        """Return the lines of a file of the run directory; none if it is missing."""
        return read_lines(self.directory / name)


def read_run(directory: Path) -> RunFiles:
    path = directory / "run.db"
    mode = "mode=ro" if path.with_name("run.db-wal").exists() else "immutable=1"
    uri = f"{path.resolve().as_uri()}?{mode}"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        db.execute("BEGIN")
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        tasks = db.execute("SELECT * FROM task").fetchall()
        whole = "adapter_model" if "peft_type" in json.loads(meta["adapter_config"]) else "model"
        return RunFiles(
            directory=directory,
            run_id=meta["run_id"],
            has_layout="layout" in meta,
            config=tomllib.loads((directory / "federation.toml").read_text()),
            weights=f"{whole}.safetensors",
            versions=[
                json.loads(text) | {"row": number}
                for number, text in db.execute("SELECT * FROM version ORDER BY rowid")
            ],
            accepted=[
                dict(row) | {"stats": json.loads(row["stats"])}
                for row in db.execute("SELECT * FROM accepted ORDER BY seq")
            ],
            phases={row["task_id"]: row["phase"] for row in tasks},
            open_tasks=[row["task_id"] for row in tasks if row["open"]],
            receipts={
                row["task_id"]: (row["attempt"], row["state"])
                for row in db.execute("SELECT * FROM receipt")
            },
            rows=json.loads(meta["clients"]),
            kept=_pairs(db, tables, "kept_update", "task_id, file"),
            scores=_pairs(db, tables, "score", "task_id, score"),
            uploads={upload for (upload,) in db.execute("SELECT DISTINCT upload FROM chunk")},
        )


def _pairs(db: sqlite3.Connection, tables: set[str], table: str, columns: str) -> dict[str, Any]:
    return dict(db.execute(f"SELECT {columns} FROM {table}").fetchall()) if table in tables else {}


# The workers' accounts


@dataclass
class WorkerRecords:
    """What workers have recorded themselves.

    Attributes:
        sent: Digests of the frames that were sent, by task and attempt.
        frames: File of each frame that a worker has kept, by digest.
        receipts: Attempt and state of the receipts of training tasks, as workers have read them.
        complete: No worker took part whose frames are not in `sent`.
    """

    sent: defaultdict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    frames: dict[str, Path] = field(default_factory=dict)
    receipts: defaultdict[str, set[tuple[int, str]]] = field(
        default_factory=lambda: defaultdict(set)
    )
    complete: bool = False

    def add_witness(self, path: Path) -> None:
        """Read `updates/TASK.ATTEMPT.DIGEST` and `receipts.jsonl` of a witness directory."""
        for file in sorted((path / "updates").glob("[!.]*")):
            frame = read_frame(file)
            self.sent[frame.header["task_id"], frame.header["attempt"]].add(frame.sha256)
            self.frames[frame.sha256] = file
        for line in read_lines(path / "receipts.jsonl"):
            if not line["evaluation"]:
                self.receipts[line["task_id"]].add((line["attempt"], line["state"]))

    def add_state(self, path: Path, run: str) -> None:
        """Read `sent.jsonl` of a site, and the updates that still wait in its slots."""
        for line in read_lines(path / "sent.jsonl"):
            if line["run"] != run or line["task"].startswith("e"):
                continue
            if "receipt" in line:
                self.receipts[line["task"]].add((line["attempt"], line["receipt"]))
            else:
                self.sent[line["task"], line["attempt"]].add(line["sha256"])
        for file in path.glob(f"{run}/slots/*/updates/[!.]*"):
            frame = read_frame(file)
            self.sent[frame.header["task_id"], frame.header["attempt"]].add(frame.sha256)
            self.frames[frame.sha256] = file

    def add_output(self, path: Path) -> None:
        """Read the receipts that a worker has printed, in lines or in JSON."""
        text = path.read_text(errors="replace")
        # The attempt is the one that was sent, which need not be the one that counts.
        for task, state in re.findall(r"\bupdate (t[0-9]+)\.[0-9]+ (accepted|rejected)\b", text):
            self.receipts[task].add((ANY, state))


def read_workers(run: str, paths: Iterable[Path], witness: Path | None) -> WorkerRecords:
    """Read what the workers of a run have recorded; `tests/chaos/ledger.py: check` says where."""
    records = WorkerRecords(complete=witness is not None)
    if witness is not None:
        records.add_witness(witness)
    folders = [path for path in paths if path.is_dir()]
    for path in folders:
        records.add_state(path, run)
    files = [path for path in paths if not path.is_dir()]
    for path in files:
        records.add_output(path)
    if folders and not files and all((path / "sent.jsonl").exists() for path in folders):
        records.complete = True
    return records


def read_lines(path: Path) -> list[Row]:
    """Return the whole lines of a JSON lines file; none if it is missing."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]
