"""Tasks around a run that need torch, performed in this process.

`fccl demo` uses them directly; the child processes of `fccl coordinator` perform one of them each.
"""

from __future__ import annotations

import time
from pathlib import Path

from common.config.config import FederationConfig
from common.paths import cache_dir
from common.protocol.tasks import BaseRef
from common.run_directory.recorded_run import read_run
from coordinator.samples_source import SamplesSource
from coordinator.storage.run import Run
from evaluation.evaluator import FULL_LIMITS, Evaluator
from evaluation.live_samples import LiveSampler
from evaluation.report import files
from evaluation.report.report import build_report
from learning.progress import ProgressCallback
from learning.training.device import detect
from preparation.base_model import MessageCallback, find_base_model
from preparation.run import create_prepared_run


class LocalTasks:
    """Implementation of `cli.run.session.ModelTasks` in this process.

    Args:
        on_message: Called with lines for the user.
    """

    def __init__(self, on_progress: ProgressCallback, on_message: MessageCallback) -> None:
        self._on_progress, self._on_message = on_progress, on_message

    def prepare_run(self, config: FederationConfig) -> Path:
        """Create the run directory and return the directory of its base model."""
        create_prepared_run(config, cache_dir(), self._on_progress, self._on_message)
        return self.find_base_model(read_run(config.run.path).base)

    def find_base_model(self, base: BaseRef) -> Path:
        """Return the directory of an existing run's base model; fetch or make it if necessary."""
        return find_base_model(base, cache_dir(), self._on_progress)

    def live_samples(self, run: Run) -> SamplesSource:
        """Return the source of live samples of a run."""
        return LiveSampler(read_run(run.directory), run.base_path, run.samples, time.time)

    def write_report(self, run: Run) -> Path:
        """Write the final report and return the path of its Markdown file."""
        return write_final_report(run.directory, run.base_path)


def write_final_report(directory: Path, base_path: Path) -> Path:
    """Evaluate the newest version of a run on every held-out row, and write the report.

    Raises:
        DataError: The prepared rows are gone.
        ModelError: The base model cannot be loaded.
        RunError: A version that is needed is gone, or the report cannot be written.
    """
    run = read_run(directory)
    evaluator = Evaluator(run, base_path, detect())
    report = build_report(evaluator, run.versions[-1].version, FULL_LIMITS)
    return files.write_report(report, directory / "report")
