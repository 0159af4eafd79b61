"""Records of a delivery: the versions of a finished run that its sites keep.

The coordinator publishes a `Delivery` before the end of the run. Behind its header follows an
`AdapterModules` as JSON, which may be longer than a header: together with the LoRA settings it says
all that `adapter_config.json` has to say, so that no file of the coordinator is copied to a site.

`coordinator/publish/delivery.py` writes a delivery, `worker/delivery/receiver.py` reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationError

from common.errors import WireError
from common.protocol.fields import (
    ClassNames,
    Count,
    ObjectiveName,
    Record,
    RunId,
    Seconds,
    Sha256,
    list_to_tuple,
)
from common.protocol.tasks import BaseRef, LoraSpec, PromptSpec
from common.protocol.wire import explain, pack, unpack

MAX_ADAPTER = 4 << 30
"""Size limit of a version as broadcast, in bytes."""
MAX_CARD = 256 << 10
"""Size limit of a card, in bytes of UTF-8."""
MAX_MODULES = 2 << 20
"""Size limit of the names of modules, in bytes of JSON."""

ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,299}$")]
ModuleNames = Annotated[
    tuple[ModuleName, ...], Field(max_length=8192), BeforeValidator(list_to_tuple)
]


class DeliveredAdapter(Record):
    """Reference to the broadcast frame of a version, as in tasks."""

    sha256: Sha256
    nbytes: Annotated[int, Field(ge=1, le=MAX_ADAPTER)]


class DeliveredCard(Record):
    """Reference to a model card, which is Markdown."""

    sha256: Sha256
    nbytes: Annotated[int, Field(ge=1, le=MAX_CARD)]


class DeliveredVersion(Record):
    """A version with its card, which is None if it could not be made."""

    version: Count
    adapter: DeliveredAdapter
    card: DeliveredCard | None = None


class Delivery(Record):
    """Coordinator → site: the result of a finished run.

    Attributes:
        objective: That of the first phase, which decides the kind of model.
        lora: None where all parameters were trained.
        best: The best version by the evaluations at the sites; None without evaluations.
    """

    run: RunId
    at: Seconds
    objective: ObjectiveName
    base: BaseRef
    lora: LoraSpec | None
    labels: Annotated[ClassNames, BeforeValidator(list_to_tuple)] = ()
    prompt: PromptSpec | None = None
    final: DeliveredVersion
    best: DeliveredVersion | None = None


class AdapterModules(Record):
    """The modules of the base model that an adapter changes; all empty without LoRA."""

    target_modules: ModuleNames = ()
    exclude_modules: ModuleNames = ()
    modules_to_save: ModuleNames = ()
    task_type: Literal["CAUSAL_LM", "SEQ_CLS"] | None = None
    fan_in_fan_out: bool = False


def pack_delivery(delivery: Delivery, modules: AdapterModules) -> bytes:
    return pack(delivery, modules.model_dump_json().encode())


def unpack_delivery(frame: bytes, run: str) -> tuple[Delivery, AdapterModules]:
    """Return the delivery of a run.

    Raises:
        WireError: The bytes are not such a frame, or belong to another run.
    """
    delivery, data = unpack(Delivery, frame)
    if delivery.run != run:
        raise WireError(f"the delivery is that of run {delivery.run}, not of {run}")
    if len(data) > MAX_MODULES:
        raise WireError(f"the delivery names modules in {len(data)} bytes, limit {MAX_MODULES}")
    try:
        return delivery, AdapterModules.model_validate_json(bytes(data))
    except ValidationError as error:
        raise WireError(f"AdapterModules: {explain(error)}") from None
