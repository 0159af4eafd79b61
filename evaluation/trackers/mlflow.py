"""Tracker that records a run in MLflow: on a server, or in files."""

from __future__ import annotations

import os

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from common.urls import HTTP_ANY, parse_url
from evaluation.trackers.protocol import Figures, Outcome, RunInfo

MAX_BATCH = 1000  # metrics in one request
MAX_PARAMETERS = 100


class MlflowTracker:
    """Tracker for MLflow.

    Args:
        uri: Tracking server, or a `file:` address; default: the environment's
            MLFLOW_TRACKING_URI, or `mlruns` in the run directory.
        experiment: Name of the experiment, created if it is new.
    """

    def __init__(self, *, uri: str = "", experiment: str = "fccl") -> None:
        self._uri, self._experiment = uri, experiment

    def start(self, run: RunInfo) -> str:
        # Without it MLflow 3 refuses files, which need neither a server nor SQLAlchemy.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri and uri.startswith(("http:", "https:")):
            parse_url(uri, HTTP_ANY)
        self._client = MlflowClient(uri or (run.directory / "mlruns").as_uri())
        if run.tracked_id is not None:
            self._run = run.tracked_id
            self._client.update_run(self._run, status="RUNNING")
            return self._run
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else None
        experiment = experiment or self._client.create_experiment(self._experiment)
        self._run = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
        self._client.set_tag(self._run, "fccl.run_id", run.run_id)
        parameters = [Param(key, str(value)) for key, value in run.settings.items()]
        for start in range(0, len(parameters), MAX_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + MAX_PARAMETERS])
        return self._run

    def log(self, figures: Figures) -> None:
        at, step = int(figures.at * 1000), figures.version
        metrics = [Metric(key, value, at, step) for key, value in figures.values.items()]
        for start in range(0, len(metrics), MAX_BATCH):
            self._client.log_batch(self._run, metrics=metrics[start : start + MAX_BATCH])

    def close(self, outcome: Outcome) -> None:
        status = "FINISHED" if outcome == "finished" else "KILLED"
        self._client.set_terminated(self._run, status)
