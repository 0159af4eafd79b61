"""Updates of real clients, from a simulated run that keeps them, in one file for all frameworks.

`updates.npz` has the tensors of version 0 as `start/NAME`, and those of update i of version t as
`t/i/NAME`. `updates.json` has for each version a list of updates: client, rows and staleness.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from common.config import loader
from common.config.overrides import set_key
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from common.run_directory.update_journal import read_update_journal
from coordinator.storage.kept_updates import DIRECTORY
from coordinator.storage.spool import each_tensor_of
from simulation.experiments import tasks
from simulation.run import simulate

VERSIONS, BUFFER = 6, 5


def simulate_updates(data: Path, work: Path) -> Path:
    """Simulate a short asynchronous run on MiniLM that keeps its updates; return its directory."""
    settings = {
        **tasks.settings("minilm", "tune", VERSIONS, data, work),
        "run.dir": str(work),
        "run.name": "peers",
        "run.keep_updates": True,
        "run.keep_versions": VERSIONS + 1,
        "schedule.buffer_size": BUFFER,
        "simulation.measure_every": 0,
    }
    table: dict[str, Any] = {}
    for key, value in settings.items():
        set_key(table, key, value, key)
    config = loader.parse(table, "benchmarks.peers")
    if not (config.run.path / "simulation.json").exists():
        simulate(config)
    return config.run.path


def write_updates(run: Path, start: Tensors, folder: Path) -> None:
    """Write the kept updates of a run, in the order in which they were accepted."""
    journal = read_update_journal(run)
    layout = TensorLayout.of(start)
    arrays = {f"start/{name}": tensor for name, tensor in start.items()}
    table: list[list[dict[str, Any]]] = []
    for number in sorted(journal.versions)[1:]:
        own = [update for update in journal.updates if update.version == number]
        for index, update in enumerate(own):
            path = run / DIRECTORY / str(update.kept)
            for name, tensor in each_tensor_of(path, update.upload, layout):
                arrays[f"{number - 1}/{index}/{name}"] = tensor
        table.append(
            [
                {
                    "client": update.client_id,
                    "rows": update.stats.num_samples,
                    "staleness": number - 1 - update.base_version,
                }
                for update in own
            ]
        )
    np.savez(folder / "updates.npz", **arrays)  # type: ignore[arg-type]
    (folder / "updates.json").write_text(json.dumps(table), encoding="utf-8")
