"""Adapters that are compared to score an update: its base version, and with the update applied."""

from __future__ import annotations

from common.protocol.adapter_form import AdapterForm, pad_factors
from common.protocol.tensors import Tensors
from coordinator.aggregation.rules.factor import aggregate_factors


def scored_adapters(
    version: Tensors, form: AdapterForm, clip: float, delta: Tensors
) -> tuple[Tensors, Tensors]:
    """Return what a client started from, and the same with its clipped update, c Δ.

    Both have all tensors of a version. For a client with a lower rank both are the model that the
    client saw: components beyond its rank are zero.

    Args:
        version: The update's base version.
        form: That of the client.
        clip: c.
        delta: Δ, in the layout of the form.
    """
    start = form.of(version)
    moved = aggregate_factors(start, [(clip, delta)])
    return version | pad_factors(start, version), version | pad_factors(moved, version)
