"""Constrained field types of the records, and their base class `Record`.

A record that exists is valid: records are frozen and strict. `common.protocol.wire` turns them into
bytes and back; `docs/protocol.md` says who writes each one and where it travels. Times are seconds
since the Unix epoch on the writer's clock; they are for people and decide nothing on another
machine.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from common.text import one_line

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A name that is safe in a queue name, a Redis key and a log line. Never used as a path."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, lt=253_402_300_800, allow_inf_nan=False)]
"""A time or a duration; before the year 10000, so that it can be written as a date."""
Fraction = Annotated[float, Field(ge=0, le=1)]
MAX_LOSS = 1e4
Loss = Annotated[float, Field(gt=0, le=MAX_LOSS, allow_inf_nan=False)]
"""Mean loss: per response token (sft), pair (dpo), answer (kto) or text (classification).

In nats, except that of kto, which is a utility between 0 and the weight of its class.
"""
AttemptNumber = Annotated[int, Field(ge=1, le=10_000)]
PhaseIndex = Annotated[int, Field(ge=0, le=1000)]
LocalSteps = Annotated[int, Field(ge=0, le=100_000)]
LocalEpochs = Annotated[int, Field(ge=0, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=10)]
MaxLength = Annotated[int, Field(ge=16, le=131072)]
ShortText = Annotated[str, Field(max_length=500), AfterValidator(one_line)]
"""Text for people; line breaks and terminal escapes become spaces, for logs and screens."""
SampleText = Annotated[str, Field(max_length=1000), AfterValidator(one_line)]
"""Text of a row, or model output, which may be just as hostile."""
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Id of a run. Like its name it has no dot, which separates the parts of queue names."""
CodecName = Literal["fp32", "bf16", "int8", "int4", "topk"]
FEEDBACK_CODECS: frozenset[CodecName] = frozenset({"int4", "topk"})
"""Codecs that drop so much that they need error feedback."""
ObjectiveName = Literal["sft", "dpo", "kto", "classification"]
RowKind = Literal["sft", "va", "kto", "cls"]
"""The kind of rows of a client's file, and the end of the file's name: `client_0_va.jsonl`."""
ROW_KINDS: dict[ObjectiveName, RowKind] = {
    "sft": "sft",
    "dpo": "va",
    "kto": "kto",
    "classification": "cls",
}
"""The kind of rows that an objective learns from."""
ClassName = Annotated[str, Field(min_length=1, max_length=200)]
ClassNames = Annotated[tuple[ClassName, ...], Field(max_length=1000)]
DtypeName = Literal["auto", "float32", "bfloat16"]
QuantizationName = Literal["none", "nf4", "int8"]
TaskState = Literal["accepted", "rejected"]


def list_to_tuple(value: object) -> object:
    """Return a list as a tuple, which msgpack does not have."""
    return tuple(value) if isinstance(value, list) else value


Shape = Annotated[
    tuple[Annotated[int, Field(ge=1, le=2**31)], ...],
    Field(max_length=8),
    BeforeValidator(list_to_tuple),
]


class Record(BaseModel):
    """A frozen, strictly typed record without unknown fields.

    Attributes:
        added: Optional fields that only schema 2 has; most kinds of record have only schema 1.
        removed: Optional fields that only schema 1 has.
        later: Optional fields that a frame leaves out while they have their defaults, because
            workers of earlier releases refuse them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    added: ClassVar[frozenset[str]] = frozenset()
    removed: ClassVar[frozenset[str]] = frozenset()
    later: ClassVar[frozenset[str]] = frozenset()

    @property
    def schema_version(self) -> int:
        """The lowest schema version that has all fields of the record."""
        return 2 if any(getattr(self, name) is not None for name in self.added) else 1

    def fields(self) -> dict[str, Any]:
        """Return the record as plain maps, lists and scalars, for msgpack or JSON."""
        return self.model_dump(mode="json")
