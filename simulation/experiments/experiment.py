"""An experiment: cases that are simulated with several seeds, and a figure that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from simulation.grid.grid import Case

Outcome = Literal["time", "loss"]
"""What is compared: virtual seconds to the target loss, or the held-out loss at the end."""
Task = Literal["minilm", "smollm2", "analytic"]
Part = Literal["report", "tune"]
"""Half of the rows: settings are chosen on one half, and figures are reported on the other."""

FIVE = (0, 1, 2, 3, 4)
THREE = (0, 1, 2)
SCREENING = (100,)
"""Seed of a screening, which is no seed of a report."""


@dataclass(frozen=True)
class Experiment:
    """One table of docs/results.

    Attributes:
        key: Its name on the command line, and of its files.
        task: What is trained; see `simulation.experiments.tasks`.
        part: Half of the rows that it uses.
        question, expected: Texts for docs/results; the second was written before the first run.
        baseline: Name of the case with which the others are compared.
        cases: What differs from the task's settings.
        note: What a reader must know about the settings.
        steady_loss: Loss that the mean of three measurements in a row must reach; a single lucky
            version does not.
    """

    key: str
    title: str
    task: Task
    part: Part
    outcome: Outcome
    question: str
    expected: str
    baseline: str
    cases: Sequence[Case]
    seeds: Sequence[int] = FIVE
    note: str = ""
    steady_loss: float | None = None
