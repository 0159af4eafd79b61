"""Pace of training: a step takes a given number of seconds, whatever this machine needs for it.

`install` wraps `learning.training.loop.train`, which both systems call through
`worker.trainer.Trainer`, so both train at the same pace. A step that took too long is made up for
by the steps after it, so that the load of this machine matters little. Each process trains with one
thread, because all sites share this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from learning.training import loop
from learning.training.loop import StepReport, TrainResult


def install(step_s: float) -> None:
    """Slow all training of this process down to `step_s` seconds per step."""
    original = loop.train

    def paced(
        model: Any, objective: Any, examples: Any, training: Any, on_step: Any, **others: Any
    ) -> TrainResult:
        torch.set_num_threads(1)
        return original(model, objective, examples, training, _wait_for(step_s, on_step), **others)

    setattr(loop, "train", paced)  # noqa: B010 - to a function of another signature


def _wait_for(step_s: float, on_step: Callable[[StepReport], bool]) -> Callable[[StepReport], bool]:
    begun = time.monotonic()

    def on_paced_step(report: StepReport) -> bool:
        time.sleep(max(0.0, begun + report.step * step_s - time.monotonic()))
        return on_step(report)

    return on_paced_step
