"""A run as its directory tells it, read by someone who does not own it.

`coordinator/run.open_run` opens a run to continue it. This reads one that is finished, stopped or
running, wherever it was moved to and under whatever name: no epoch is taken, no file is touched.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.config import FederationConfig
from common.errors import RunError
from common.protocol import codec
from common.protocol.fields import RowKind
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from common.protocol.versions import VersionSummary
from coordinator.core.state import Plan
from coordinator.storage import run as runs
from coordinator.storage.journal import Journal
from coordinator.storage.run_config import saved_config
from coordinator.storage.versions import Versions


@dataclass(frozen=True)
class Recorded:
    """What a run directory says.

    Attributes:
        directory: Of the run.
        config: As the run began.
        run_id: Its id.
        software: That began it.
        base: Of its models.
        labels: Class names, where it classifies.
        rows: Training rows by client and kind.
        sources: What became of each source's rows, by kind.
        adapter_config: `adapter_config.json` of every version, or `config.json`.
        summaries: Of all versions, oldest first.
        present: The versions that are still on the disk.
    """

    directory: Path
    config: FederationConfig
    run_id: str
    software: str
    base: BaseRef
    labels: tuple[str, ...]
    rows: Mapping[str, Mapping[RowKind, int]]
    sources: Mapping[str, Any]
    adapter_config: Mapping[str, Any]
    summaries: tuple[VersionSummary, ...]
    present: tuple[int, ...]

    @property
    def plan(self) -> Plan:
        """What the run set out to do."""
        return runs.build_plan(self.config, self.rows)

    def choose(self, version: int | None) -> int:
        """A version that is on the disk; the newest for None.

        Raises:
            RunError: It is not there; lists those that are.
        """
        if not self.present:
            raise RunError(f"{self.directory} has no version on the disk", "restore versions/")
        if version is None:
            return self.present[-1]
        if version not in self.present:
            raise RunError(
                f"version {version} of {self.directory} is not on the disk",
                f"choose one of {spans(self.present)}",
            )
        return version

    def tensors(self, version: int) -> Tensors:
        """θ of a version, if it is what the journal says.

        Raises:
            RunError: The file is gone, damaged, or holds something else.
        """
        versions = Versions(
            self.directory / "versions", self.adapter_config, self.config.codec.adapter
        )
        (summary,) = (each for each in self.summaries if each.version == version)
        if codec.digest(versions.frame(version)) != summary.sha256:
            raise RunError(
                f"{versions.directory(version)} is not what the journal says it was",
                "choose another --version, or restore the run from a backup",
            )
        return versions.read(version)


def read(directory: Path) -> Recorded:
    """Read a run directory.

    Raises:
        RunError: It holds no run, or one of another release.
        ConfigError: Its `federation.toml` was damaged.
    """
    config = saved_config(directory)
    try:
        meta, summaries = _journaled(directory / "run.db")
        return Recorded(
            directory=directory,
            config=config,
            run_id=meta["run_id"],
            software=meta["software"],
            base=BaseRef.model_validate_json(meta["base"]),
            labels=tuple(json.loads(meta["labels"])),
            rows=json.loads(meta["clients"]),
            sources=json.loads(meta["sources"]),
            adapter_config=json.loads(meta["adapter_config"]),
            summaries=summaries,
            present=_present(directory / "versions", summaries),
        )
    except (KeyError, ValueError) as error:  # ValidationError and JSON's are ValueErrors
        what = type(error).__name__ if isinstance(error, ValidationError) else str(error)[:100]
        raise RunError(
            f"{directory / 'run.db'} lacks or misstates {what}",
            "read it with the release of fccl that made it",
        ) from None


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers in few words: `0, 4, 7 to 9`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(
        f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts
    )


def _present(versions: Path, summaries: Sequence[VersionSummary]) -> tuple[int, ...]:
    places = ((each.version, versions / f"{each.version:06d}") for each in summaries)
    return tuple(version for version, place in places if place.is_dir())


def _journaled(path: Path) -> tuple[dict[str, str], tuple[VersionSummary, ...]]:
    """The journal's fixed rows and its versions.

    Without a write-ahead log nobody has the journal open, and `immutable` leaves no trace, even on
    read-only media; beside a running coordinator its log is read, too.
    """
    if not path.exists():
        raise RunError(f"{path} does not exist", "name a directory under runs/")
    how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True)
    except sqlite3.DatabaseError as error:
        raise RunError(f"{path}: {error}", "check that the file can be read") from None
    journal = Journal(db, path)
    try:
        return journal.meta(), tuple(journal.versions())
    finally:
        journal.close()
