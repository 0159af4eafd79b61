"""Section of a model card about evaluation, from a report's JSON in the run directory.

Reports contain clients' names and rows of text. Only figures under the names in `_FIGURES` pass
into the card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.run_directory.recorded_run import RecordedRun
from evaluation.export.card_data import KIND_TITLES, format_table

_REPORTS = ("evaluation.json", "report/evaluation.json", "report/report.json")
_MAX_REPORT = 16 << 20  # bytes; no report of fccl comes near
_FIGURES = (
    *("rows", "nats_per_token", "perplexity", "bits_per_byte", "loss", "accuracy", "macro_f1"),
    *("accuracy_per_token", "reward_accuracy", "reward_margin", "reward_good", "reward_bad"),
)
"""The keys of a report that may be shown; any other key may be a client's name."""


def find_evaluation(run: RecordedRun, version: int) -> Mapping[str, Any]:
    """Return the evaluation of a version from the run directory; empty if there is none."""
    for name in _REPORTS:
        report = _read_json(run.directory / name)
        if _version_of(report) == version:
            return report
    return {}


def build_evaluation_section(report: Mapping[str, Any], first: str = "base") -> str:
    """Return the held-out figures of version 0 and the version; an empty text if there are none.

    Args:
        first: Title of version 0, by `evaluation.assessment.first_title`.
    """
    rows = list(_figure_rows(report))
    if not rows:
        return ""
    table = format_table(("rows", "figure", first, "federated"), rows)
    note = _rewards_note(report)
    return f"## Evaluation\n\nOn held-out rows that no client has:\n\n{table}{note}"


def _rewards_note(report: Mapping[str, Any]) -> str:
    """Return what rewards are relative to; without it, the base's would mean nothing."""
    kinds = report.get("kinds")
    notes = ""
    for kind, name in (("va", "preferences"), ("kto", "ratings")):
        found = kinds.get(kind) if isinstance(kinds, dict) else None
        found = found if isinstance(found, dict) else {}
        beta, reference = found.get("beta"), found.get("reference")
        if isinstance(beta, int | float) and isinstance(reference, int) and beta:
            notes += (
                f"\n\nRewards are β = {beta:g} times the log-probability minus that of version"
                f" {reference}, with which the alignment to {name} began."
            )
    return notes


def _figure_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    kinds = report.get("kinds")
    pairs = (
        {name: _heldout(kind) for name, kind in kinds.items()} if isinstance(kinds, dict) else {}
    )
    if not any(pairs.values()):
        pairs = {"": (report.get("base"), report.get("federated"))}
    for kind, title in (("", ""), *KIND_TITLES.items()):
        base, federated = pairs.get(kind) or (None, None)
        if isinstance(base, dict) and isinstance(federated, dict):
            for name in _FIGURES:
                pair = (base.get(name), federated.get(name))
                if all(isinstance(value, int | float) for value in pair):
                    yield (title, name.replace("_", " "), *(f"{value:.4g}" for value in pair))


def _heldout(kind: Any) -> tuple[Any, Any] | None:
    """Return the held-out figures of base and assessed version."""
    figures = kind.get("heldout") if isinstance(kind, dict) else None
    return (figures[0], figures[-1]) if isinstance(figures, list) and len(figures) > 1 else None


def _version_of(report: Mapping[str, Any]) -> int | None:
    """Return the version that a report states, or else the last one that it lists."""
    if isinstance(stated := report.get("version"), int):
        return stated
    versions = report.get("versions")
    last = versions[-1] if isinstance(versions, list) and versions else None
    number = last.get("version") if isinstance(last, dict) else None
    return number if isinstance(number, int) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_REPORT:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
