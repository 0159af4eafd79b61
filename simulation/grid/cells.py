"""Cells of a grid: one configuration each, with a run directory named by a digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import loader
from common.config.config import FederationConfig
from common.config.overrides import set_key
from common.errors import ConfigError
from simulation.grid.grid import Grid
from simulation.records import INTERRUPTED, SimulationSummary, read_summary

_PLACE = ("dir", "name")
"""Keys of [run] that a grid sets itself."""
_OF_ROWS = ("data", "model", "evaluation")


@dataclass(frozen=True)
class Cell:
    """One simulated run of a grid."""

    case: str
    settings: Mapping[str, Any]  # values of the axes, by dotted key
    config: FederationConfig

    @property
    def label(self) -> str:
        """The cell in a line: its case and its settings."""
        values = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.case}: {values}" if self.case and values else self.case or values

    def finished(self) -> SimulationSummary | None:
        """Return how it ended; None if it did not, or was interrupted."""
        summary = read_summary(self.config.run.path)
        return None if summary is None or summary.reason == INTERRUPTED else summary


def make_cells(config: FederationConfig, grid: Grid, folder: Path) -> list[Cell]:
    """Return the cells of a grid, whose run directories are in a folder.

    Clients' rows that are dealt in the same way are dealt once, into `FOLDER/rows`.

    Raises:
        ConfigError: A key or a value is wrong, or two cells are equal.
    """
    cells: dict[str, Cell] = {}
    for case, axes in grid.combinations():
        values = ", ".join(f"{key}={value}" for key, value in axes.items())
        where = f"grid cell {case.name} {values}".replace("  ", " ")[:120]
        table = config.model_dump(mode="json")
        for key, value in {**case.settings, **axes}.items():
            if key.startswith("run.") and key.removeprefix("run.") in _PLACE:
                raise ConfigError(f"{where}: a grid sets {key} itself", "leave it out")
            set_key(table, key, value, f"{where}: {key}")
        digest = _digest(table)
        table["run"] |= {"dir": str(folder), "name": f"cell-{digest}"}
        parsed = loader.parse(table, where)
        if parsed.data.dir is None and parsed.simulation.objective == "training":
            rows = folder / "rows" / _digest({key: table[key] for key in _OF_ROWS} | _dealt(table))
            table["data"]["dir"] = str(rows)
            parsed = loader.parse(table, where)
        if digest in cells:
            raise ConfigError(f"{where}: equal to another cell", "leave one of them out")
        cells[digest] = Cell(case.name, axes, parsed)
    return list(cells.values())


def _dealt(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides how rows are dealt, besides their sections."""
    return {"seed": table["run"]["seed"], "phases": [each["objective"] for each in table["phase"]]}


def _digest(table: Mapping[str, Any]) -> str:
    placeless = dict(table)
    if "run" in placeless:
        placeless["run"] = {k: v for k, v in placeless["run"].items() if k not in _PLACE}
    text = json.dumps(placeless, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
