"""Run directories with a small made-up adapter and updates by named clients, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.config.loader import parse
from common.protocol.fields import RowKind
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats
from common.protocol.versions import UpdateSummary, VersionSummary
from coordinator.storage import run as runs
from coordinator.storage.journal import Journal
from coordinator.storage.versions import Versions
from tests.support.coordinator_records import SHA

TENSORS: Tensors = {"a": np.zeros(40, np.float32)}


def site_run(
    place: Path, clients: Sequence[str], *, dealt: bool = False, versions: int = 2, **tables: Any
) -> Path:
    """Make a run whose versions 1, 2 … have an update of each client.

    Args:
        dealt: Whether two clients have rows of the coordinator; otherwise all rows are at sites.
        tables: Further tables of the configuration.
    """
    config = parse(
        {
            "run": {"name": "r", "dir": str(place)},
            "data": {} if dealt else {"clients": 0},
            "phase": [{"versions": versions}],
            **tables,
        },
        "test",
    )
    kind: RowKind = config.phase[0].kind
    rows: dict[str, dict[RowKind, int]] = (
        {f"client_{i}": {kind: 20} for i in range(2)} if dealt else {}
    )
    start = runs.PreparedRun(
        base=BaseRef(name="tiny", kind="local", digest=SHA),
        base_path=place,
        rows=rows,
        labels=config.data.labels,
        adapter=TENSORS,
        adapter_config={"peft_type": "LORA"},
    )
    runs.create_run(config, lambda directory: start, 1.0)
    journal = Journal.open(config.run.path / "run.db")
    kept = Versions(config.run.path / "versions", start.adapter_config, config.codec.adapter)
    for number in range(1, versions + 1):
        ref = kept.stage(number, {"a": TENSORS["a"] + number})
        journal.put_version(
            VersionSummary(
                version=number, phase=0, at=1.0 + number, sha256=ref.sha256, nbytes=ref.nbytes,
                updates=tuple(_update(number, client, len(clients)) for client in clients),
                train_loss=3.0 - 0.1 * number,
            )
        )  # fmt: skip
        kept.place(number, ref.sha256)
    journal.close()
    return config.run.path


def _update(version: int, client: str, count: int) -> UpdateSummary:
    return UpdateSummary(
        task_id=f"t{version}{client}", client_id=client, worker_id="w", base_version=version - 1,
        staleness=0, score=1.0, weight=1 / count, staleness_factor=1.0, participation_factor=1.0,
        clip=1.0, coefficient=1 / count, nbytes=10,
        stats=ContributionStats(
            num_samples=30, num_tokens=100, steps=2, avg_loss=3.0, delta_norm=1.0,
            train_seconds=1.0,
        ),
    )  # fmt: skip
