"""Table of faults: JSON lines that runs append to, and their summary by kind in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.chaos.plan import KINDS


@dataclass(frozen=True)
class FaultRecord:
    """One injected fault. Times are in seconds."""

    commit: str
    seed: int
    number: int
    kind: str
    at_s: float
    seconds: float
    recovery_s: float | None  # None: no progress shows it, or the run ended first
    alone: bool  # no other fault was active until the recovery
    federation: bool = False


@dataclass(frozen=True)
class FederationRecord:
    """One federation; `problems` is empty if it passed."""

    commit: str
    seed: int
    faults: int
    seconds: float
    versions: int
    recomputed: int  # versions that the ledger checker made again, equal to the bit
    updates: int
    epochs: int
    problems: tuple[str, ...] = ()
    federation: bool = True


def append(path: Path, records: Iterable[FaultRecord | FederationRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(record)) + "\n" for record in records)


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def summarise(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the Markdown table of the faults, and a sentence about their federations."""
    records = list(records)
    federations = [record for record in records if record["federation"]]
    faults = [record for record in records if not record["federation"]]
    lines = [
        "| fault | times | recovered after, median | … undisturbed by other faults | maximum |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind in KINDS:
        of_kind = [fault for fault in faults if fault["kind"] == kind]
        if of_kind:
            lines.append(_row(kind, of_kind))
    passed = sum(not record["problems"] for record in federations)
    updates = sum(record["updates"] for record in federations)
    versions = sum(record["versions"] for record in federations)
    recomputed = sum(record["recomputed"] for record in federations)
    return "\n".join(
        [
            f"{len(faults)} faults in {len(federations)} federations, of which {passed} passed;"
            f" {updates} updates in {versions} versions, {recomputed} recomputed to the bit.",
            "",
            *lines,
        ]
    )


def _row(kind: str, faults: list[Mapping[str, Any]]) -> str:
    times = [fault["recovery_s"] for fault in faults if fault["recovery_s"] is not None]
    alone = [f["recovery_s"] for f in faults if f["alone"] and f["recovery_s"] is not None]
    cells = [_seconds(median(times) if times else None)]
    cells += [_seconds(median(alone) if alone else None), _seconds(max(times, default=None))]
    return f"| {kind} | {len(faults)} | {' | '.join(cells)} |"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
