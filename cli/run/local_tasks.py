"""Tasks around a run that need torch, performed in this process.

`fccl demo` uses them directly; each child process of `fccl coordinator` performs one of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from common.config.config import FederationConfig
from common.paths import cache_dir
from common.protocol.tasks import BaseRef
from common.run_directory.recorded_run import read_run
from coordinator.samples_source import SamplesSource
from coordinator.scores_source import ScoreSource
from coordinator.storage.run import Run
from evaluation.evaluator import Evaluator
from evaluation.export.export import write_card
from evaluation.live_samples import LiveSampler
from evaluation.report import files
from evaluation.report.build import build_report
from evaluation.report.report import recorded_report
from evaluation.update_scorer import UpdateScorer
from learning.progress import ProgressCallback
from learning.training.device import detect
from preparation.base_model import MessageCallback, find_base_model
from preparation.run import create_prepared_run


class LocalTasks:
    """Implementation of `cli.run.session.ModelTasks` in this process."""

    def __init__(self, on_progress: ProgressCallback, on_message: MessageCallback) -> None:
        self._on_progress, self._on_message = on_progress, on_message

    def prepare_run(self, config: FederationConfig) -> Path:
        create_prepared_run(config, cache_dir(), self._on_progress, self._on_message)
        return self.find_base_model(read_run(config.run.path).base)

    def find_base_model(self, base: BaseRef) -> Path:
        return find_base_model(base, cache_dir(), self._on_progress)

    def live_samples(self, run: Run) -> SamplesSource:
        if not run.config.has_prompts:
            return SamplesSource()
        return LiveSampler(read_run(run.directory), run.base_path, run.samples, time.time)

    def write_cards(self, run: Run, versions: Sequence[int]) -> list[str]:
        return write_cards(run.directory, run.base_path, versions)

    def update_scores(self, run: Run) -> ScoreSource:
        if run.plan.aggregation.contribution_source != "server":
            return ScoreSource()
        return UpdateScorer(read_run(run.directory), run.base_path)

    def write_report(self, run: Run) -> Path:
        return write_final_report(run.directory, run.base_path, self._on_progress)


def find_recorded_base(directory: Path, on_progress: ProgressCallback) -> Path:
    """Return the directory of the base model of a run directory; fetch or make it if necessary."""
    return find_base_model(read_run(directory).base, cache_dir(), on_progress)


def write_cards(directory: Path, base_path: Path, versions: Sequence[int]) -> list[str]:
    """Return the model cards of versions of a run.

    Raises:
        ModelError: The base model cannot be loaded.
        RunError: A version is gone or damaged.
    """
    run = read_run(directory)
    return [write_card(run, base_path, version) for version in versions]


def write_final_report(directory: Path, base_path: Path, on_progress: ProgressCallback) -> Path:
    """Evaluate the newest version of a run on its held-out rows, if any, and write the report.

    Raises:
        DataError: The prepared rows are gone.
        ModelError: The base model cannot be loaded.
        RunError: A version that is needed is gone, or the report cannot be written.
    """
    run = read_run(directory)
    version = run.versions[-1].version
    if not run.config.has_heldout:
        return files.write_report(recorded_report(run, version), directory / "report")
    evaluator = Evaluator(run, base_path, detect())
    report = build_report(evaluator, version, evaluator.report_limits(), on_progress)
    return files.write_report(report, directory / "report")
