"""Speeds that depend on the rows: the clients with the largest share of a label are slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from common.config import loader
from common.config.config import FederationConfig
from common.paths import cache_dir
from learning.data import prepared_data
from learning.data import rows as rows_of
from learning.data.row_types import LabelledText
from learning.progress import ignore_progress
from preparation.base_model import resolve_base_model
from preparation.data import prepare_rows
from simulation.grid.cells import Cell
from simulation.population.streams import Streams

SHARE, FACTOR = 0.4, 10.0


def with_slow_clients(cell: Cell, label: str, folder: Path) -> Cell:
    """Return a cell whose trace makes the clients with most rows of a label slow.

    Its rows are dealt first, into the folder that its configuration names.
    """
    config = cell.config
    assert config.data.dir is not None  # a grid has set it
    prepare_rows(
        config,
        partial(resolve_base_model, config, cache_dir(), ignore_progress),
        Path(config.data.dir),
        lambda text: None,
    )
    shares = label_shares(Path(config.data.dir), label)
    trace = folder / f"trace-{Path(config.data.dir).name}.csv"
    trace.write_text(_trace(config, shares), encoding="utf-8")
    table = config.model_dump(mode="json")
    table["simulation"] |= {"trace": str(trace), "speed_sigma": 0.0}
    return replace(cell, config=loader.parse(table, cell.label))


def label_shares(folder: Path, label: str) -> dict[str, float]:
    """Return the share of a label among the rows of each client."""
    shares = {}
    for shard in prepared_data.load(folder).shards:
        rows = rows_of.read(shard.kind, shard.path).rows
        own = sum(isinstance(row, LabelledText) and row.label == label for row in rows)
        shares[shard.client_id] = own / len(rows)
    return shares


def _trace(config: FederationConfig, shares: dict[str, float]) -> str:
    order: Sequence[str] = sorted(shares, key=lambda name: (-shares[name], name))
    slow = set(order[: round(SHARE * len(order))])
    streams, lines = Streams(config.run.seed), ["client,speed"]
    for number, name in enumerate(sorted(shares)):
        speed = float(np.exp(config.simulation.speed_sigma * streams.of("speed", number).normal()))
        lines.append(f"{name},{speed / FACTOR if name in slow else speed:.6f}")
    return "\n".join(lines) + "\n"
