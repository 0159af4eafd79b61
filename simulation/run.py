"""A simulated run from its configuration to its end; `fccl simulate` and experiments call it.

The run directory is an ordinary one. It cannot be resumed, because virtual machines are not kept
in it: an interrupted run starts over.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag

from common.config.config import FederationConfig
from common.config.effect import check_effect
from common.errors import ConfigError
from common.paths import cache_dir
from common.run_directory.recorded_run import read_run
from coordinator.storage import run as runs
from coordinator.storage.run import PreparedRun, Run
from evaluation.evaluator import Evaluator
from evaluation.update_scorer import HeldoutLoss
from learning.progress import ProgressCallback, ignore_progress
from preparation.base_model import MessageCallback, apply_offline_fallback, find_base_model
from preparation.run import prepare_run
from simulation.driver.adapters import Adapters
from simulation.driver.answers import Answers
from simulation.driver.clock import EPOCH
from simulation.driver.coordinator import ComputeScores, VirtualCoordinator
from simulation.driver.memory_spool import MemorySpool
from simulation.driver.simulator import Simulator
from simulation.heldout import HeldoutRows
from simulation.population.faults import corrupt, spoil_rows
from simulation.population.population import make_population
from simulation.population.streams import Streams
from simulation.records import SimulationSummary, write_summary
from simulation.scores import cosine_scores, no_scores, server_scores
from simulation.work.training import TrainingWork, simulation_compute


def _ignore_message(text: str) -> None:
    pass


@dataclass(frozen=True)
class SimulationCallbacks:
    """Callbacks of `simulate`, in its own thread."""

    on_progress: ProgressCallback = ignore_progress  # while the run is prepared
    on_message: MessageCallback = _ignore_message
    on_version: Callable[[int, float], None] = lambda version, seconds: None


def check_simulation(config: FederationConfig) -> None:
    """Check that a configuration can be simulated.

    Raises:
        ConfigError: A setting contradicts another one, or makes no sense in a simulation.
    """
    check_effect(config)
    if config.sites_only:
        raise ConfigError(
            "data.clients = 0 leaves all rows at the sites, but a simulation has none",
            "set data.clients to the number of virtual clients",
        )


def simulate(
    config: FederationConfig,
    callbacks: SimulationCallbacks | None = None,
    stop: Flag | None = None,
) -> SimulationSummary:
    """Simulate a new run in the configured directory, which must not exist, and return its end.

    Raises:
        ConfigError: The configuration cannot be simulated.
        RunError: The run directory exists, or the disk refuses.
        DataError, ModelError: The run cannot be prepared.
    """
    callbacks = callbacks or SimulationCallbacks()
    begun = time.perf_counter()
    runs.check_mode(config, "start")
    config = apply_offline_fallback(config, callbacks.on_message)
    check_simulation(config)
    streams = Streams(config.run.seed)
    runs.create_run(config, partial(_prepare, config, streams, callbacks), EPOCH)
    find_base = partial(find_base_model, cache=cache_dir(), on_progress=callbacks.on_progress)
    run = runs.open_run(config, find_base, durable=False)
    try:
        with tempfile.TemporaryDirectory(prefix="fccl-simulation-") as private:
            simulator = _make_simulator(run, config, streams, Path(private), callbacks)
            finish = simulator.run(stop or Flag())
    finally:
        run.journal.close()
    reason = simulator.stop_reason or finish.reason
    summary = _summarize(config, simulator, finish.complete, reason, time.perf_counter() - begun)
    write_summary(run.directory, summary)
    return summary


def _prepare(
    config: FederationConfig, streams: Streams, callbacks: SimulationCallbacks, directory: Path
) -> PreparedRun:
    prepared = prepare_run(
        config, cache_dir(), callbacks.on_progress, callbacks.on_message, directory
    )
    population = make_population(config.simulation, list(prepared.rows), streams)
    faulty = [client.name for client in population if client.faulty]
    spoil_rows(directory / "clients", faulty, config.simulation, prepared.labels, streams)
    return prepared


def _make_simulator(
    run: Run,
    config: FederationConfig,
    streams: Streams,
    private: Path,
    callbacks: SimulationCallbacks,
) -> Simulator:
    settings = config.simulation
    compute = simulation_compute(autocast=settings.autocast)
    work = TrainingWork(run.plan, run.directory / "clients", run.base_path, private, compute)
    recorded = read_run(run.directory)
    evaluator = Evaluator(recorded, run.base_path, compute)

    def make_answers(spool: MemorySpool, coordinator: VirtualCoordinator) -> Answers:
        adapters = Adapters(
            run.journal, run.versions, coordinator.candidates, lambda: coordinator.state
        )
        return Answers(
            work,
            run.versions,
            spool,
            private,
            adapters.fetch,
            lambda client, number, trained: corrupt(
                trained, settings, streams, client.index, number
            ),
            run.rule,
        )

    def compute_scores(spool: MemorySpool) -> ComputeScores:
        match run.plan.aggregation.contribution_source:
            case "cosine":
                return cosine_scores(run.versions, spool, run.rule)
            case "server":
                loss = HeldoutLoss(recorded, evaluator)
                return server_scores(run.versions, spool, run.forms, loss.of_tensors)
        return no_scores

    return Simulator(
        run,
        settings,
        make_population(settings, list(run.plan.clients), streams),
        streams,
        work,
        make_answers,
        compute_scores,
        HeldoutRows(recorded, evaluator, settings.measure_rows),
        callbacks.on_version,
    )


def _summarize(
    config: FederationConfig, simulator: Simulator, complete: bool, reason: str, wall_s: float
) -> SimulationSummary:
    counts, measured = simulator.counts, simulator.measured
    target = config.simulation.target_loss
    reached = [each for each in measured if target is not None and each.loss <= target]
    return SimulationSummary(
        seed=config.run.seed,
        complete=complete or bool(reached),
        reason=reason,
        seconds=simulator.clock.seconds,
        versions=simulator.coordinator.state.version,
        tasks=counts.tasks,
        updates=counts.updates,
        rejected=counts.rejected,
        lost=counts.lost,
        bytes_up=counts.bytes_up,
        bytes_down=counts.bytes_down,
        target_s=reached[0].seconds if reached else None,
        final_loss=measured[-1].loss if measured else None,
        best_loss=min((each.loss for each in measured), default=None),
        final_metrics=measured[-1].metrics if measured else {},
        wall_s=round(wall_s, 3),
    )
