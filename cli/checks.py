"""What can be told to be wrong at once, before torch is imported: that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from common.config import FederationConfig
from common.errors import DataError
from coordinator import run as runs
from coordinator.run import Mode


def check(config: FederationConfig, mode: str) -> None:
    """Refuse a run that cannot begin.

    Args:
        config: Of the run.
        mode: `start`, `resume` or `new`.

    Raises:
        RunError: The run directory is there, or is not, against the mode.
        DataError: A new run has no data file.
    """
    runs.check(config, cast(Mode, mode))
    made = config.data.sft == "synthetic" or mode == "resume"  # a run keeps its rows
    if not made and not Path(config.data.sft).exists():
        raise DataError(f"data file {config.data.sft} does not exist", "check the path")
