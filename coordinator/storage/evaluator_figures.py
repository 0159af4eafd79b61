"""`evaluator_figures.jsonl` of a run directory: figures of plug-in evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.files import append_jsonl
from common.protocol.evaluations import EvaluatorFigures
from common.run_directory import evaluator_figures
from coordinator.storage.journal import Journal


def append_figures(directory: Path, journal: Journal, figures: Sequence[EvaluatorFigures]) -> None:
    """Append figures; raise `FencedError` if another coordinator took over."""
    with journal.fenced():
        append_jsonl(directory / evaluator_figures.FILE, (each.fields() for each in figures))
