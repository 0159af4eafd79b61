"""Tracker that records a run in Weights & Biases, online or in files."""

from __future__ import annotations

from typing import Literal

import wandb

from evaluation.trackers.protocol import Figures, Outcome, RunInfo


class WandbTracker:
    """Tracker for Weights & Biases; the environment's WANDB_API_KEY is the login.

    Args:
        project: Name of the project.
        entity: User or team; empty: the default of the login.
        mode: "offline" writes files, which `wandb sync` uploads.
        dir: Folder of local files; default: the run directory.
    """

    def __init__(
        self,
        *,
        project: str = "fccl",
        entity: str = "",
        mode: Literal["online", "offline"] = "online",
        dir: str = "",
    ) -> None:
        self._project, self._entity, self._mode, self._dir = project, entity, mode, dir

    def start(self, run: RunInfo) -> str:
        self._run = wandb.init(
            project=self._project,
            entity=self._entity or None,
            name=run.name,
            id=run.tracked_id or run.run_id,
            resume="allow",
            mode=self._mode,
            dir=self._dir or str(run.directory),
            config=dict(run.settings),
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, x_disable_stats=True
            ),
        )
        # A step of W&B must never decrease, but an evaluation may come after later versions.
        self._run.define_metric("*", step_metric="version")
        return run.tracked_id or run.run_id

    def log(self, figures: Figures) -> None:
        self._run.log({**figures.values, "version": figures.version})

    def close(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
        wandb.teardown()  # offline, its service writes the file only after `finish` has returned
