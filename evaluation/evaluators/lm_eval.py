"""Evaluator that runs tasks of the package lm-eval, its own or those of a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evaluation.evaluators.protocol import VersionInfo


class LmEvalEvaluator:
    """Evaluator for causal language models.

    Args:
        tasks: Names of tasks.
        include: Folder with YAML files of further tasks. Paths of data in them are relative to the
            working directory.
        limit: Rows of each task; None: all.
        batch_size: Rows in one forward pass.
        num_fewshot: Examples in the prompt; None: what the task says.
        device: "cpu", "cuda", …; empty: a GPU if there is one.
    """

    def __init__(
        self,
        *,
        tasks: tuple[str, ...],
        include: str = "",
        limit: int | None = None,
        batch_size: int = 8,
        num_fewshot: int | None = None,
        device: str = "",
    ) -> None:
        if not tasks:
            raise ValueError("tasks is empty")
        if include and not Path(include).is_dir():
            raise ValueError(f"include = {include!r} is not a folder")
        self._tasks, self._include, self._limit = tasks, include, limit
        self._batch_size, self._num_fewshot, self._device = batch_size, num_fewshot, device
        self._manager: TaskManager | None = None

    def evaluate(self, version: VersionInfo) -> Mapping[str, float]:
        model = HFLM(
            pretrained=str(version.base if version.adapter else version.directory),
            tokenizer=str(version.base),
            peft=str(version.directory) if version.adapter else None,
            batch_size=self._batch_size,
            **({"device": self._device} if self._device else {}),
        )
        found = simple_evaluate(
            model,
            tasks=list(self._tasks),
            task_manager=self._task_manager(),
            limit=self._limit,
            num_fewshot=self._num_fewshot,
            bootstrap_iters=0,
            log_samples=False,
        )
        return _figures(found["results"] if found else {})

    def close(self) -> None:
        self._manager = None

    def _task_manager(self) -> TaskManager:
        """Return the index of tasks; that of lm-eval's own is read only where it is needed."""
        if self._manager is None and self._include:
            own = TaskManager(include_path=self._include, include_defaults=False)
            if set(self._tasks) <= set(own.all_tasks):
                self._manager = own
        if self._manager is None:
            self._manager = TaskManager(include_path=self._include or None)
        return self._manager


def _figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return results as `task/metric`, without standard errors."""
    return {
        f"{task}/{metric.removesuffix(',none')}": float(value)
        for task, values in results.items()
        for metric, value in values.items()
        if isinstance(value, int | float) and "_stderr" not in metric and metric != "sample_len"
    }
