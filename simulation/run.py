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
from coordinator.storage import run as runs
from coordinator.storage.run import Run
from simulation.driver.adapters import Adapters
from simulation.driver.answers import Answers
from simulation.driver.clock import EPOCH
from simulation.driver.coordinator import ComputeScores, VirtualCoordinator
from simulation.driver.memory_spool import MemorySpool
from simulation.driver.simulator import Simulator
from simulation.population.population import make_population
from simulation.population.streams import Streams
from simulation.population.update_faults import corrupt
from simulation.records import SimulationSummary, write_summary
from simulation.scores import cosine_scores, no_scores, server_scores
from simulation.work.analytic_run import analytic_parts, check_analytic, prepare_analytic
from simulation.work.parts import WorkParts


def _ignore_message(text: str) -> None:
    pass


def _ignore_progress(message: str, fraction: float) -> None:
    pass


@dataclass(frozen=True)
class SimulationCallbacks:
    """Callbacks of `simulate`, in its own thread."""

    on_progress: Callable[[str, float], None] = _ignore_progress  # while the run is prepared
    on_message: Callable[[str], None] = _ignore_message
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
    if config.min_clients > config.data.clients:
        raise ConfigError(
            f"schedule.min_clients is {config.min_clients}, but the run has"
            f" {config.data.clients} clients",
            "lower it, or raise data.clients",
        )
    if is_analytic(config):
        check_analytic(config)
    if config.simulation.trace or config.simulation.faulty_clients:
        names = [f"client_{i}" for i in range(config.data.clients)]
        make_population(config.simulation, names, Streams(config.run.seed))  # checks the names


def is_analytic(config: FederationConfig) -> bool:
    return config.simulation.objective == "analytic"


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
    callbacks, begun = callbacks or SimulationCallbacks(), time.perf_counter()
    runs.check_mode(config, "start")
    check_simulation(config)
    streams = Streams(config.run.seed)
    with tempfile.TemporaryDirectory(prefix="fccl-simulation-") as private:
        run, parts = _begin(config, streams, Path(private), callbacks)
        try:
            simulator = _make_simulator(run, parts, streams, Path(private), callbacks)
            finish = simulator.run(stop or Flag())
        finally:
            run.journal.close()
    reason = simulator.stop_reason or finish.reason
    summary = _summarize(config, simulator, finish.complete, reason, time.perf_counter() - begun)
    write_summary(run.directory, summary)
    return summary


def _begin(
    config: FederationConfig, streams: Streams, private: Path, callbacks: SimulationCallbacks
) -> tuple[Run, WorkParts]:
    """Create the run directory; torch is imported only where it is needed."""
    if is_analytic(config):
        runs.create_run(config, partial(prepare_analytic, config, streams), EPOCH)
        run = runs.open_run(config, lambda base: config.run.path, durable=False)
        return run, analytic_parts(run, streams)
    from preparation.base_model import apply_offline_fallback
    from simulation.work import training_run

    on_progress, on_message = callbacks.on_progress, callbacks.on_message
    config = apply_offline_fallback(config, on_message)
    prepare = partial(training_run.prepare_training, config, streams, on_progress, on_message)
    runs.create_run(config, prepare, EPOCH)
    find_base = partial(training_run.find_base_model, on_progress=on_progress)
    run = runs.open_run(config, find_base, durable=False)
    return run, training_run.training_parts(run, private)


def _make_simulator(
    run: Run,
    parts: WorkParts,
    streams: Streams,
    private: Path,
    callbacks: SimulationCallbacks,
) -> Simulator:
    settings = run.config.simulation

    def make_answers(spool: MemorySpool, coordinator: VirtualCoordinator) -> Answers:
        candidates, journal = coordinator.candidates, run.journal
        adapters = Adapters(journal, run.versions, candidates, lambda: coordinator.state)
        return Answers(
            parts.work,
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
                return server_scores(run.versions, spool, run.forms, parts.loss_of)
        return no_scores

    return Simulator(
        run,
        settings,
        make_population(settings, list(run.plan.clients), streams),
        streams,
        parts.work,
        make_answers,
        compute_scores,
        parts.heldout,
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
