"""Blocks of a report about the figures of plug-in evaluators (`evaluation/evaluators/`)."""

from __future__ import annotations

from collections.abc import Sequence

from common.document.blocks import Block, Heading, Table
from common.protocol.evaluations import EvaluatorFigures
from evaluation.report.figure_tables import ABSENT

MAX_COLUMNS = 8  # versions: the first, and the newest


def build_evaluators(found: Sequence[EvaluatorFigures]) -> list[Block]:
    """Return a table for each evaluator: figures by version."""
    blocks: list[Block] = []
    for name in sorted({each.evaluator for each in found}):
        own = sorted((f for f in found if f.evaluator == name), key=lambda each: each.version)
        shown = own if len(own) <= MAX_COLUMNS else [own[0], *own[1 - MAX_COLUMNS :]]
        keys = list(dict.fromkeys(key for each in shown for key in each.figures))
        header = ("figure", *(f"version {each.version}" for each in shown))
        rows = tuple((key, *(_cell(each, key) for each in shown)) for key in keys)
        blocks += [Heading(f"Evaluator {name}"), Table(header, rows)]
    return blocks


def _cell(found: EvaluatorFigures, key: str) -> str:
    return f"{found.figures[key]:.4g}" if key in found.figures else ABSENT
