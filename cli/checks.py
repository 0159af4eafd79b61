"""Checks before a run starts, made before torch is imported, which takes seconds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from common.config.config import FederationConfig
from common.errors import DataError
from coordinator.storage import run as runs
from coordinator.storage.run import StartMode

FILES = {".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt"}


def check_can_start(config: FederationConfig, mode: str) -> None:
    """Raise an error for a run that cannot start in a mode of `coordinator.storage.run.StartMode`.

    Raises:
        RunError: The run directory exists and must not, or the reverse.
        DataError: A data file of a new run does not exist.
    """
    runs.check_mode(config, cast(StartMode, mode))
    if mode == "resume" or (mode == "continue" and runs.run_exists(config)):  # a run keeps its rows
        return
    for kind in config.kinds:
        source = config.data.source(kind)
        if source != "synthetic" and not Path(source).exists() and not _maybe_hub(source):
            raise DataError(f"data file {source} does not exist", f"check data.{kind}")


def _maybe_hub(source: str) -> bool:
    """Return whether this may be the id of a hub data set rather than a file's name."""
    named = re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:.+)?", source) is not None
    return named and Path(source).suffix.lower() not in FILES
