"""Finished run with kept updates, and what its worker has seen, for checks of the accounting."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.chunks import parse_chunk
from common.protocol import codec
from common.protocol.updates import Update
from common.protocol.wire import unpack
from coordinator.ingest import ingest
from tests.support.polled_federation import CHUNK, PolledFederation, answer


@dataclass(frozen=True)
class WitnessedRun:
    """Run directory, and the directory of its witness."""

    run: Path
    witness: Path

    def execute(self, query: str, *values: object) -> None:
        """Change the journal."""
        with closing(sqlite3.connect(self.run / "run.db", isolation_level=None)) as db:
            db.execute(query, values)

    def change_summary(self, version: int, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the summary of a version in the journal."""
        query = "SELECT summary FROM version WHERE version = ?"
        with closing(sqlite3.connect(self.run / "run.db")) as db:
            summary = json.loads(db.execute(query, (version,)).fetchone()[0])
        change(summary)
        query = "UPDATE version SET summary = ? WHERE version = ?"
        self.execute(query, json.dumps(summary), version)


@contextmanager
def small_chunks() -> Iterator[None]:
    """Make the coordinator expect chunks of a few hundred bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "parse_chunk", partial(parse_chunk, chunk_bytes=CHUNK))
        yield


def witnessed_run(
    directory: Path,
    answer: Callable[[bytes], bytes] = answer,
    *,
    complete: bool = True,
    **settings: Any,
) -> WitnessedRun:
    """Run a federation with one worker to its end, or until its first version."""
    federation = PolledFederation(directory, **{"keep_updates": True, **settings})
    run = WitnessedRun(federation.directory, directory / "witness")
    (run.witness / "updates").mkdir(parents=True)

    def witnessed(task: bytes) -> bytes:
        frame = answer(task)
        header, _ = unpack(Update, frame)
        name = f"{header.task_id}.{header.attempt}.{codec.digest(frame)[:12]}"
        (run.witness / "updates" / name).write_bytes(frame)
        return frame

    def stop_after_a_version() -> None:
        if any(event.kind == "version" for event in federation.events):
            federation.stop.set()

    federation.answer = witnessed
    if not complete:
        federation.on_turn = stop_after_a_version
    with small_chunks():
        assert federation.serve().complete == complete
    with (run.witness / "receipts.jsonl").open("w") as lines:
        for task in sorted({path.name[:7] for path in (run.witness / "updates").iterdir()}):
            receipt = federation.store.get_receipt(federation.topology.run, "local", task)
            if receipt is not None:
                lines.write(json.dumps(receipt.fields() | {"evaluation": False}) + "\n")
    return run
