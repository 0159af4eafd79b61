"""Differential privacy of clients: Gaussian noise joins the updates of a buffer.

    θ_{t+1} = rule(θ_t, Σ (1/K) s(τᵢ) cᵢ Δᵢ + (zC/K) N(0, I)),   cᵢ = min(1, C/‖Δᵢ‖),  s(τᵢ) ≤ 1

K is the buffer size also when a commit has fewer updates, so that without one client's update the
sum differs by at most C/K. The noise is one more update, so every rule that begins with a weighted
sum (`factor`, `ffa`, server optimizers) does the rest, as post-processing.

Source: McMahan et al., "Learning Differentially Private Recurrent Language Models", 2018, without
its amplification by sampling, since clients are not sampled. `common/privacy.py` computes ε.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from common.errors import RunError
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array
from coordinator.aggregation.noise import gaussian
from coordinator.aggregation.rules.rule import Result, Rule, Step, WeightedUpdate

NOISE = "noise"
"""In place of the task and the client of an update."""


@dataclass(frozen=True)
class PrivateRule:
    """Another rule, with noise among its updates.

    Attributes:
        rule: Rule that is linear in the sum of updates.
        deviation: Standard deviation of the noise on each value of the weighted sum: zC/K, times
            the server's learning rate where the coefficients have it.
    """

    rule: Rule
    deviation: float

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        return self.rule.update_layout(layout, client_id)

    def apply(self, step: Step) -> Result:
        """Return the next version; raise `RunError` for two updates of one client."""
        clients = [update.client_id for update in step.updates]
        if len(set(clients)) < len(clients):
            raise RunError(f"version {step.version} would have two updates of one client")
        layout = self.rule.update_layout(TensorLayout.of(step.current), NOISE)
        noise = WeightedUpdate(
            task_id=NOISE,
            client_id=NOISE,
            base_version=step.version - 1,
            coefficient=self.deviation,
            tensors=lambda: _noise(step.noise_seed, layout),
        )
        return self.rule.apply(replace(step, updates=[*step.updates, noise]))


def _noise(seed: bytes, layout: TensorLayout) -> Iterator[tuple[str, Array]]:
    for name, shape in layout.tensors:
        yield name, gaussian(seed, name, math.prod(shape)).astype(np.float32).reshape(shape)
