"""Beginning and parts of a simulated run that trains for real."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from common.config.config import FederationConfig
from common.files import make_private
from common.paths import cache_dir
from common.protocol.tasks import BaseRef
from common.run_directory.recorded_run import read_run
from coordinator.storage.run import PreparedRun, Run
from evaluation.evaluator import Evaluator
from evaluation.update_scorer import HeldoutLoss
from learning.progress import ProgressCallback
from preparation import base_model
from preparation.base_model import MessageCallback
from preparation.data import is_prepared
from preparation.run import prepare_run
from simulation.population.population import make_population
from simulation.population.row_faults import spoil_rows
from simulation.population.streams import Streams
from simulation.work.heldout_rows import HeldoutRows
from simulation.work.parts import WorkParts
from simulation.work.training import TrainingWork, simulation_compute


def prepare_training(
    config: FederationConfig,
    streams: Streams,
    on_progress: ProgressCallback,
    on_message: MessageCallback,
    directory: Path,
) -> PreparedRun:
    """Write `clients/` into a run directory, with the wrong labels of faulty clients.

    Raises the errors of `preparation.run.prepare_run`.
    """
    with _dealing(config):
        prepared = prepare_run(config, cache_dir(), on_progress, on_message, directory)
    population = make_population(config.simulation, list(prepared.rows), streams)
    faulty = [client.name for client in population if client.faulty]
    spoil_rows(directory / "clients", faulty, config.simulation, prepared.labels, streams)
    return prepared


@contextmanager
def _dealing(config: FederationConfig) -> Iterator[None]:
    """Wait for other simulations that deal rows into the same folder, as cells of a grid do."""
    if config.data.dir is None or is_prepared(folder := Path(config.data.dir)):
        yield
        return
    make_private(folder.parent)
    with FileLock(folder.with_name(f".{folder.name}.dealing")):
        yield


def find_base_model(base: BaseRef, on_progress: ProgressCallback) -> Path:
    return base_model.find_base_model(base, cache_dir(), on_progress)


def training_parts(run: Run, private: Path) -> WorkParts:
    """Return the parts of a run; `private` is a directory for what clients keep between tasks."""
    settings = run.config.simulation
    compute = simulation_compute(autocast=settings.autocast)
    recorded = read_run(run.directory)
    evaluator = Evaluator(recorded, run.base_path, compute)
    return WorkParts(
        TrainingWork(run.plan, run.directory / "clients", run.base_path, private, compute),
        HeldoutRows(recorded, evaluator, settings.measure_rows),
        HeldoutLoss(recorded, evaluator).of_tensors,
    )
