"""Base class of the configuration's sections, and the number types that they share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Section(BaseModel):
    """A frozen table that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
