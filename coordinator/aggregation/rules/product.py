"""Rule `product`: the sum of the updates' products B·A, exact for stale bases and mixed ranks.

`coordinator/aggregation/low_rank.py` has the formula and its sources; here it is applied to one
layer after another. Tensors without LoRA, such as a head, are added as by `factor`. Memory holds
the factors of one layer of all buffered updates, besides the versions that they started from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby

import numpy as np
from threadpoolctl import threadpool_limits

from common.errors import WireError
from common.protocol.adapter_form import factor_of
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors
from coordinator.aggregation.forms import AdapterForms
from coordinator.aggregation.low_rank import Change, Factors, next_factors
from coordinator.aggregation.rules.rule import Result, Step


@dataclass(frozen=True)
class ProductRule:
    """Best approximation of the sum of products; `forms` has the ranks of the clients."""

    forms: AdapterForms

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        return self.forms.of(client_id).layout(layout)

    def apply(self, step: Step) -> Result:
        # One thread: the matrices are small, and the bits do not depend on the number of cores.
        with threadpool_limits(1, "blas"):
            return Result(_next_version(step))


def _next_version(step: Step) -> Tensors:
    """Return the next version; updates are read side by side, one tensor at a time."""
    current, result = step.version - 1, dict(step.current)
    bases = {update.base_version for update in step.updates} - {current}
    versions = {number: step.read_version(number) for number in sorted(bases)}
    versions[current] = step.current
    begin = cache(lambda: versions[0] if 0 in versions else step.read_version(0))
    readers = [update.tensors() for update in step.updates]
    for _, group in groupby(sorted(step.current), _layer):  # A comes directly before B
        names = tuple(group)
        deltas = {name: [_next_tensor(reader, name) for reader in readers] for name in names}
        if len(names) == 1:
            _add(result, names[0], step, deltas[names[0]])
            continue
        a, b = names
        known = {number: Factors(version[b], version[a]) for number, version in versions.items()}
        changes = [
            Change(update.coefficient, update.base_version, Factors(delta_b, delta_a))
            for update, delta_a, delta_b in zip(step.updates, deltas[a], deltas[b], strict=True)
        ]
        fresh = partial(_factors_of, begin, a, b)
        found = next_factors(current, known, changes, fresh)
        result[a], result[b] = found.a, found.b
    return result


def _layer(name: str) -> str:
    factor = factor_of(name)
    return name if factor is None else factor[0]


def _factors_of(read: Callable[[], Tensors], a: str, b: str) -> Factors:
    tensors = read()
    return Factors(tensors[b], tensors[a])


def _next_tensor(reader: Iterator[tuple[str, Array]], name: str) -> Array:
    """Return the next tensor of an update, which has to be the one of a name."""
    found, tensor = next(reader, ("nothing", None))
    if tensor is None or found != name:
        raise WireError(f"an update has {found} where the version has {name}")
    return tensor


def _add(result: Tensors, name: str, step: Step, deltas: Sequence[Array]) -> None:
    for update, delta in zip(step.updates, deltas, strict=True):
        result[name] = result[name] + np.float32(update.coefficient) * delta
