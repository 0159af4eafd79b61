"""Protocol of aggregation rules, and what they get and return.

A rule is a pure function of the current version, the server's state and the buffered updates. The
coordinator applies it when it commits (`coordinator/storage/commit.py`), and `fccl verify` applies
it again: the same inputs have to give the same bits on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors


@dataclass(frozen=True)
class WeightedUpdate:
    """Buffered update with its factor.

    Attributes:
        task_id: Id of its task.
        client_id: Its client.
        base_version: The version v that it was trained from.
        coefficient: kᵢ = wᵢ s(τᵢ) rᵢ cᵢ, times the server's learning rate where no server optimizer
            is set; `coordinator/aggregation/coefficients.py` computes it.
        tensors: Begins to read names and tensors of the delta, float32 and in the order of the
            layout; every call begins anew.
        weight: wᵢ.
        scale: s(τᵢ) rᵢ cᵢ; robust rules aggregate the deltas times this.
    """

    task_id: str
    client_id: str
    base_version: int
    coefficient: float
    tensors: Callable[[], Iterator[tuple[str, Array]]]
    weight: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True)
class Step:
    """Input of a rule.

    Attributes:
        version: The version t + 1 that is made.
        current: θ_t, float32 tensors by name; a rule may change the dictionary, not the arrays.
        state: Server state that was made with version t; empty for the first step of a phase.
        updates: The buffered updates, in the order in which they were accepted.
        read_version: Returns the tensors of an earlier version that an update was trained from.
        noise_seed: Secret from which differential privacy draws its noise; empty without it.
    """

    version: int
    current: Tensors
    state: Tensors
    updates: Sequence[WeightedUpdate]
    read_version: Callable[[int], Tensors]
    noise_seed: bytes = b""


@dataclass(frozen=True)
class Result:
    """Output of a rule.

    Attributes:
        tensors: θ_{t+1}, with the names and shapes of the current version.
        state: Server state for the next step, such as the moments of an optimizer.
        left_out: Ids of the tasks whose updates the rule has left out as outliers.
    """

    tensors: Tensors
    state: Tensors = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


class Rule(Protocol):
    """Aggregation rule of a run."""

    def update_layout(self, layout: TensorLayout, client_id: str) -> TensorLayout:
        """Return the layout of a client's updates, given that of the versions."""
        ...

    def apply(self, step: Step) -> Result:
        """Return the next version."""
        ...
