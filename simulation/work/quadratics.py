"""Analytic objective: a quadratic for each client, whose losses and optimum have a closed form.

    f_i(x) = 1/(2d) · Σ_j H_ij (x_j − x*_ij)²        F(x) = Σ_i p_i f_i(x),  p_i = n_i / Σ n

The curvatures H_ij are geometrically spaced from 1 to 1/κ over the d coordinates, κ being
`simulation.condition`, and differ between clients by a lognormal factor; the optima are
x*_i = 1 + h·z_i with standard normal z_i and h = `simulation.heterogeneity`. All runs begin at
x = 0. A local step is x ← x − lr (H_i (x − x*_i) + σ/√b · ξ) with standard normal ξ, batch size b
and σ = `simulation.noise`. The k steps of a task are one draw of what they amount to:

    x_k = x*_i + aᵏ (x_0 − x*_i) + lr·σ/√b · √((1 − a²ᵏ)/(1 − a²)) · ξ,    a = 1 − lr·H_i

No client's figures are kept: each is drawn again from its own random stream, so that memory does
not grow with the number of clients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.config.simulation import SimulationConfig
from common.errors import ConfigError, ModelError
from common.evaluation.sums import EvaluationSums
from common.protocol.evaluations import EvalTask
from common.protocol.fields import MAX_LOSS
from common.protocol.tasks import LocalTraining, TrainTask
from common.protocol.tensors import Tensors
from common.protocol.updates import ContributionStats
from simulation.population.streams import Streams
from simulation.work.work import FetchAdapter, Trained

TENSOR = "x"
"""Name of the only tensor of a version."""
ROWS = 100
"""Rows of a client of median size."""
MIN_LOSS = 1e-9
_CURVATURE_SPREAD = 0.5

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """The objective of one client: diagonal curvature H and optimum x*."""

    curvature: Vector
    optimum: Vector

    def loss(self, x: Vector) -> float:
        return float(np.mean(self.curvature * (x - self.optimum) ** 2)) / 2


class Quadratics:
    """The objectives of all clients, and their weighted mean F."""

    def __init__(self, config: SimulationConfig, sizes: Sequence[int], streams: Streams) -> None:
        """Draw every client once for F; `sizes` are their numbers of rows."""
        self._config, self._streams = config, streams
        d = config.dimension
        self._spectrum: Vector = np.geomspace(1.0, 1 / config.condition, d)
        total = float(sum(sizes))
        curvature, linear, square = np.zeros(d), np.zeros(d), np.zeros(d)
        for index, size in enumerate(sizes):
            own = self.of(index)
            weighted = size / total * own.curvature
            curvature += weighted
            linear += weighted * own.optimum
            square += weighted * own.optimum**2
        self.optimum: Vector = linear / curvature
        self._curvature, self._linear, self._constant = curvature, linear, float(square.sum())
        self.least = self.loss(self.optimum)

    def of(self, client: int) -> Quadratic:
        """Return the objective of a client, the same in every call."""
        rng, config = self._streams.of("objective", client), self._config
        spread = _CURVATURE_SPREAD * min(1.0, config.heterogeneity)
        factor = np.exp(spread * rng.standard_normal(config.dimension) - spread**2 / 2)
        optimum = 1.0 + config.heterogeneity * rng.standard_normal(config.dimension)
        return Quadratic(self._spectrum * factor, optimum)

    def loss(self, x: Vector) -> float:
        """Return F(x)."""
        quadratic = float((self._curvature * x**2 - 2 * self._linear * x).sum())
        return (quadratic + self._constant) / (2 * len(x))

    def excess(self, tensors: Tensors) -> float:
        """Return F(x) − F(x*), which is 0 at the optimum."""
        return max(0.0, self.loss(tensors[TENSOR].astype(np.float64)) - self.least)


def draw_sizes(config: SimulationConfig, clients: int, streams: Streams) -> list[int]:
    """Return the number of rows of each client: lognormal with median `ROWS`."""
    if not config.size_sigma:
        return [ROWS] * clients
    drawn = np.exp(config.size_sigma * streams.of("sizes").standard_normal(clients))
    return [max(1, round(ROWS * float(factor))) for factor in drawn]


def local_steps(training: LocalTraining, rows: int) -> int:
    """Return the number of steps of a task."""
    return training.steps or training.epochs * math.ceil(rows / training.batch_size)


class QuadraticWork:
    """Work on the quadratics."""

    def __init__(
        self,
        quadratics: Quadratics,
        rows: Sequence[int],
        indexes: dict[str, int],
        noise: float,
        streams: Streams,
    ) -> None:
        """Create the work.

        Args:
            quadratics: The clients' objectives.
            rows: The number of rows of each client.
            indexes: Place of each client among them.
            noise: σ of a gradient.
            streams: Random streams of the run.
        """
        self._quadratics, self._rows, self._indexes = quadratics, rows, indexes
        self._noise, self._streams = noise, streams

    def steps(self, task: TrainTask) -> int:
        return local_steps(task.training, self._rows[self._indexes[task.client_id]])

    def train(self, task: TrainTask, adapter: Tensors, fetch: FetchAdapter) -> Trained:
        index = self._indexes[task.client_id]
        own = self._quadratics.of(index)
        training, k = task.training, self.steps(task)
        start = adapter[TENSOR].astype(np.float64)
        a = 1.0 - training.lr * own.curvature
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            noise = np.sqrt(np.where(np.abs(a) == 1, k, (1 - a ** (2 * k)) / (1 - a**2)))
            scale = training.lr * self._noise / math.sqrt(training.batch_size)
            drawn = self._streams.of("gradient", task.seed).standard_normal(len(start))
            end = own.optimum + a**k * (start - own.optimum) + scale * noise * drawn
            before, after = own.loss(start), own.loss(end)
        if not after <= MAX_LOSS:
            raise ModelError(
                f"training diverged: the loss is {after:.3g}", "lower the learning rate"
            )
        delta = {TENSOR: (end - start).astype(np.float32)}
        stats = ContributionStats(
            num_samples=self._rows[index],
            num_tokens=k * training.batch_size,
            steps=k,
            avg_loss=max(MIN_LOSS, (before + after) / 2),  # of its first and its last step
            loss_before=max(MIN_LOSS, before),
            loss_after=max(MIN_LOSS, after),
            train_seconds=0.0,
            delta_norm=float(np.linalg.norm(end - start)),
        )
        return Trained(delta, stats)

    def evaluate(
        self, task: EvalTask, fetch: FetchAdapter
    ) -> tuple[EvaluationSums, EvaluationSums | None]:
        raise ConfigError(
            "clients of the analytic objective have no rows to evaluate on",
            "set evaluation.federated = false",
        )


class ExcessLoss:
    """Measures versions by F(x) − F(x*) and the distance to the optimum, per √dimension."""

    def __init__(self, quadratics: Quadratics) -> None:
        self._quadratics = quadratics

    def measure(self, version: int, tensors: Tensors, phase: int) -> tuple[float, dict[str, float]]:
        x = tensors[TENSOR].astype(np.float64)
        distance = float(np.linalg.norm(x - self._quadratics.optimum)) / math.sqrt(len(x))
        return self._quadratics.excess(tensors), {"distance": distance}
