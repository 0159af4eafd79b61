"""Beginning and parts of a simulated run with the analytic objective: no rows and no base model.

Its base model is the objective itself, `analytic:…`, with a digest of the settings that define it,
and an adapter is the point x. Nothing else loads such a run's versions as a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.config.config import FederationConfig
from common.errors import ConfigError
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from coordinator.storage.run import PreparedRun, Run
from simulation.population.streams import Streams
from simulation.work.parts import WorkParts
from simulation.work.quadratics import (
    TENSOR,
    ExcessLoss,
    Quadratics,
    QuadraticWork,
    draw_sizes,
)

_DEFINING = ("dimension", "heterogeneity", "condition", "noise", "size_sigma")


def check_analytic(config: FederationConfig) -> None:
    """Raise `ConfigError` for a setting that needs a model or rows."""
    for what, remedy in _contradictions(config):
        raise ConfigError(f'simulation.objective = "analytic": {what}', remedy)


def _contradictions(config: FederationConfig) -> Iterator[tuple[str, str]]:
    if any(phase.objective != "sft" for phase in config.phase):
        yield "phases have no objective of their own", "leave phase.objective out"
    if config.aggregation.rule in ("ffa", "product"):
        yield (
            f'aggregation.rule = "{config.aggregation.rule}" needs the factors of LoRA',
            'set it to "factor"',
        )
    if config.aggregation.contribution_source == "federated" or config.evaluates_at_sites:
        yield (
            "clients have no rows to evaluate on",
            'choose another aggregation.contribution_source, and set evaluation.federated = "auto"',
        )
    if rows := [fault for fault in config.simulation.faults if fault.startswith("labels-")]:
        yield f"clients have no labels, so that {rows[0]} has no effect", "choose another fault"


def prepare_analytic(config: FederationConfig, streams: Streams, directory: Path) -> PreparedRun:
    """Return the beginning of a run: x = 0, and clients with numbers of rows."""
    settings = config.simulation
    sizes = draw_sizes(settings, config.data.clients, streams)
    defined = {name: getattr(settings, name) for name in _DEFINING} | {"seed": config.run.seed}
    text = json.dumps(defined, sort_keys=True)
    return PreparedRun(
        base=BaseRef(
            name=f"analytic:quadratics-{settings.dimension}",
            kind="offline",
            digest=hashlib.sha256(text.encode()).hexdigest(),
        ),
        base_path=directory,
        rows={f"client_{i}": {"sft": size} for i, size in enumerate(sizes)},
        adapter=_start(settings.dimension),
        adapter_config={"model_type": "fccl-analytic", **defined},
    )


def _start(dimension: int) -> Tensors:
    return {TENSOR: np.zeros(dimension, np.float32)}


def analytic_parts(run: Run, streams: Streams) -> WorkParts:
    """Return the parts of a run."""
    settings = run.config.simulation
    sizes = [client.rows["sft"] for client in run.plan.clients.values()]
    indexes = {name: index for index, name in enumerate(run.plan.clients)}
    quadratics = Quadratics(settings, sizes, streams)
    return WorkParts(
        QuadraticWork(quadratics, sizes, indexes, settings.noise, streams),
        ExcessLoss(quadratics),
        lambda tensors, base: quadratics.excess(tensors),
    )
