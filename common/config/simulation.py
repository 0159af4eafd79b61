"""[simulation]: the virtual clients of `fccl simulate`, their work and what is measured.

A live run ignores this section. `simulation/population/` makes clients of it; docs/simulation.md
describes every key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from common.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section
from common.protocol.fields import Fraction, Identifier, list_to_tuple

FaultKind = Literal[
    "labels-swapped",
    "labels-random",
    "lie-loss",
    "lie-size",
    "sign-flip",
    "scale",
    "noise",
    "collude",
]
"""What faulty and hostile clients do; docs/simulation.md defines each."""

Span = tuple[NonNegativeFloat, PositiveFloat]
"""Start, in seconds since the run began, and length in seconds."""


def _to_tuples(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(tuple(each) if isinstance(each, list) else each for each in value)


class SimulationConfig(Section):
    """[simulation]: how virtual clients behave, and what is measured."""

    objective: Literal["training", "analytic"] = "training"
    step_s: PositiveFloat = 1.0
    speed_sigma: Annotated[float, Field(ge=0, le=5)] = 0.0
    stragglers: Fraction = 0.0
    straggler_factor: Annotated[float, Field(ge=1, le=1e6)] = 10.0
    trace: Annotated[str, Field(min_length=1)] | None = None
    latency_s: NonNegativeFloat = 0.05
    upload_mbps: NonNegativeFloat = 0.0  # 0: no limit
    download_mbps: NonNegativeFloat = 0.0
    availability: Annotated[float, Field(gt=0, le=1)] = 1.0
    available_s: PositiveFloat = 3600.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cuts: Annotated[tuple[Span, ...], BeforeValidator(_to_tuples)] = ()
    faults: Annotated[tuple[FaultKind, ...], BeforeValidator(list_to_tuple)] = ()
    faulty: Fraction = 0.0
    faulty_clients: Annotated[tuple[Identifier, ...], BeforeValidator(list_to_tuple)] = ()
    fault_scale: PositiveFloat = 1.0
    autocast: bool = False
    measure_every: Annotated[int, Field(ge=0, lt=2**31)] = 1  # 0: never
    measure_rows: PositiveInt = 500
    target_loss: PositiveFloat | None = None
    max_s: PositiveFloat = 2_592_000.0
    dimension: Annotated[int, Field(ge=1, le=10_000_000)] = 100
    heterogeneity: NonNegativeFloat = 1.0
    condition: Annotated[float, Field(ge=1, le=1e6)] = 10.0
    noise: NonNegativeFloat = 0.1
    size_sigma: Annotated[float, Field(ge=0, le=5)] = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> SimulationConfig:
        if self.faulty and self.faulty_clients:
            raise ValueError("set faulty (a share) or faulty_clients (names), not both")
        if bool(self.faults) != bool(self.faulty or self.faulty_clients):
            raise ValueError(
                "faults says what faulty clients do, and faulty or faulty_clients which they are:"
                " set both"
            )
        if self.target_loss is not None and not self.measure_every:
            raise ValueError("target_loss needs measure_every above 0")
        return self
