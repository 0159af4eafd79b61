"""Tracker that records a run in trackio: a local database, or a Space."""

from __future__ import annotations

import trackio

from evaluation.trackers.protocol import Figures, Outcome, RunInfo


class TrackioTracker:
    """Tracker for `trackio show`; the environment's TRACKIO_DIR moves the local database.

    Args:
        project: Name of the project.
        space: Space of the Hugging Face hub; empty: the local database.
    """

    def __init__(self, *, project: str = "fccl", space: str = "") -> None:
        self._project, self._space = project, space

    def start(self, run: RunInfo) -> str:
        name = run.tracked_id or run.run_id
        self._run = trackio.init(
            project=self._project,
            name=name,
            space_id=self._space or None,
            config=dict(run.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return name

    def log(self, figures: Figures) -> None:
        self._run.log(dict(figures.values), step=figures.version)

    def close(self, outcome: Outcome) -> None:
        self._run.finish()
