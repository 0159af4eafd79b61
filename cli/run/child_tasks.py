"""Tasks around a run that need torch, performed in child processes by `fccl coordinator`.

`cli/run/child_process.py` starts the children; their program, `cli/run/child_main.py`, performs the
tasks of `cli/run/local_tasks.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli.console import Output
from cli.run.child_process import run_task
from cli.run.child_sampler import ChildSampler
from cli.run.child_scorer import ChildScorer
from common.config.config import FederationConfig
from common.model_cache import find_installed
from common.paths import cache_dir
from common.protocol.tasks import BaseRef
from coordinator.samples_source import SamplesSource
from coordinator.scores_source import ScoreSource
from coordinator.storage import run as runs
from coordinator.storage.run import Run

_CONNECTIONS = {
    "broker",
    "store",
    "operations",
    "trackers",
    "evaluators",
}  # sections that no task needs


class ChildTasks:
    """Implementation of `cli.run.session.ModelTasks` in child processes."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def prepare_run(self, config: FederationConfig) -> Path:
        fields = config.model_dump(mode="json", exclude=_CONNECTIONS)
        try:
            return Path(run_task("prepare", {"config": fields}, self._output))
        except BaseException:
            runs.remove_partial_run(config)  # the child may have been killed
            raise

    def find_base_model(self, base: BaseRef) -> Path:
        if (path := find_installed(base.digest, cache_dir())) is not None:
            return path
        return Path(run_task("base model", {"base": base.fields()}, self._output))

    def live_samples(self, run: Run) -> SamplesSource:
        if not run.config.has_prompts:
            return SamplesSource()
        return ChildSampler(run.directory, run.base_path, run.samples)

    def write_cards(self, run: Run, versions: Sequence[int]) -> list[str]:
        request = {"directory": str(run.directory), "base_path": str(run.base_path)}
        found = run_task("cards", {**request, "versions": list(versions)}, self._output)
        return [str(text) for text in found]

    def update_scores(self, run: Run) -> ScoreSource:
        if run.plan.aggregation.contribution_source != "server":
            return ScoreSource()
        return ChildScorer(run.directory, run.base_path)

    def write_report(self, run: Run) -> Path:
        request = {"directory": str(run.directory), "base_path": str(run.base_path)}
        return Path(run_task("report", request, self._output))
