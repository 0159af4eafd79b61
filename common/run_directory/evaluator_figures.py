"""Figures of plug-in evaluators, as a run directory keeps them: `evaluator_figures.jsonl`.

`coordinator/storage/evaluator_figures.py` appends to the file.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import RunError
from common.files import read_jsonl
from common.protocol.evaluations import EvaluatorFigures

FILE = "evaluator_figures.jsonl"


def read_evaluator_figures(directory: Path) -> tuple[EvaluatorFigures, ...]:
    """Read the figures, oldest first; raise `RunError` for a damaged file."""
    path = directory / FILE
    try:
        lines = [EvaluatorFigures.model_validate(line) for line in read_jsonl(path)]
    except (OSError, ValueError):  # of JSON, of UTF-8, of a field
        raise RunError(
            f"{path} is damaged", "remove it: only evaluators' figures are lost"
        ) from None
    newest = {(line.version, line.evaluator): line for line in lines}
    return tuple(sorted(newest.values(), key=lambda line: line.at))
