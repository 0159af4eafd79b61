"""Tracker that writes event files for TensorBoard, without TensorFlow or torch."""

from __future__ import annotations

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from evaluation.trackers.protocol import Figures, Outcome, RunInfo


class TensorBoardTracker:
    """Tracker for `tensorboard --logdir DIR`.

    Args:
        dir: Folder of event files, one folder per run; default: `tensorboard` in the run directory.
    """

    def __init__(self, *, dir: str = "") -> None:
        self._dir = dir

    def start(self, run: RunInfo) -> str:
        folder = Path(self._dir) if self._dir else run.directory / "tensorboard"
        path = run.tracked_id or str((folder / run.run_id).resolve())
        self._writer = EventFileWriter(path)
        return path

    def log(self, figures: Figures) -> None:
        values = [Summary.Value(tag=k, simple_value=v) for k, v in figures.values.items()]
        event = Event(wall_time=figures.at, step=figures.version, summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self, outcome: Outcome) -> None:
        self._writer.close()
