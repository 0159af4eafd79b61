"""Step by a server optimizer, from an aggregate of the deltas that may be a robust one.

The aggregate D, the pseudo-gradient, is Σ kᵢ Δᵢ without the server's learning rate η, or what a
robust rule makes of the updates. The optimizer turns it into the step; without one it is η D.

It wraps a rule whose deltas can be added (`factor`, `ffa`), which decides what travels.
"""

from __future__ import annotations

import numpy as np

from common.config.config import AggregationConfig
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from coordinator.aggregation.optimizers import optimize
from coordinator.aggregation.robust.aggregate import robust_aggregate
from coordinator.aggregation.rules.factor import add_delta
from coordinator.aggregation.rules.rule import Result, Rule, Step

CENTER = "center/"
"""Prefix of the state's names: the aggregate of the step before, for centred clipping."""


class PseudoGradientRule:
    """Rule with a server optimizer, a robust aggregate, or both."""

    def __init__(self, linear: Rule, config: AggregationConfig) -> None:
        self._linear, self._config = linear, config

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        return self._linear.update_layout(layout, client_id)

    def apply(self, step: Step) -> Result:
        config, left_out, state = self._config, frozenset[str](), Tensors()
        if config.robust.rule == "none":
            delta = _weighted_sum(step)
        else:
            zeros = _zeros(step)
            center = {name: step.state.get(f"{CENTER}{name}", zeros[name]) for name in zeros}
            delta, left_out = robust_aggregate(config.robust, step.updates, center)
        if config.robust.rule == "centered-clip":
            state = {f"{CENTER}{name}": tensor for name, tensor in delta.items()}
        tensors, moments = optimize(
            config.optimizer, config.server_lr, step.current, step.state, delta
        )
        return Result(tensors, state | moments, left_out)


def _zeros(step: Step) -> Tensors:
    """Return zeros in the layout of the updates, which may have fewer tensors than a version."""
    return {name: np.zeros_like(tensor) for name, tensor in step.updates[0].tensors()}


def _weighted_sum(step: Step) -> Tensors:
    result = _zeros(step)
    for update in step.updates:
        add_delta(result, update.coefficient, update.tensors())
    return result
