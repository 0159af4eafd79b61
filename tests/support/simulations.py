"""Simulated runs of the analytic objective, which need neither rows nor a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.config.config import FederationConfig
from common.config.loader import parse
from common.run_directory.recorded_run import RecordedRun, read_run
from simulation.records import SimulationSummary
from simulation.run import simulate


def analytic_config(folder: Path, name: str = "run", **sections: Any) -> FederationConfig:
    """Return a small run; sections replace keys of the defaults."""
    table: dict[str, Any] = {
        "run": {"dir": str(folder), "name": name},
        "data": {"clients": 6},
        "phase": [{"versions": 4, "local_steps": 2, "lr": 0.3}],
        "schedule": {"concurrency": 4, "buffer_size": 2},
        "codec": {"update": "fp32"},
        "simulation": {"objective": "analytic", "dimension": 5, "latency_s": 0.0},
    }
    for section, values in sections.items():
        if section == "phase":
            table["phase"][0] |= values
        else:
            table.setdefault(section, {}).update(values)
    return parse(table, "test")


def simulated(config: FederationConfig) -> tuple[RecordedRun, SimulationSummary]:
    """Simulate a run and return its directory and its end."""
    summary = simulate(config)
    return read_run(config.run.path), summary
