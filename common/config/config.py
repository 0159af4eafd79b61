"""The federation's configuration: frozen models ← `federation.toml` ← `FCCL_…` environment.

Unknown keys are errors; so are wrong types. An environment variable overrides one key and joins
the levels with two underscores: `FCCL_SCHEDULE__CONCURRENCY=8`, `FCCL_PHASE__0__LR=1e-3`.
`TEMPLATE` is what `fccl init` writes; it documents every key.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from common.errors import ConfigError
from common.protocol.fields import (
    ROW_KINDS,
    BatchSize,
    ClassName,
    CodecName,
    LearningRate,
    LocalEpochs,
    LocalSteps,
    MaxLength,
    ObjectiveName,
    RowKind,
    RunName,
    list_to_tuple,
)
from common.protocol.tasks import DpoSettings, LoraSpec
from common.protocol.wire import explain

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Override = str | int | float | bool | list[Any]

_FIXED = {"run", "broker", "store", "operations", "offline"}  # no matter of the model hub
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Section(BaseModel):
    """A frozen table without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RunConfig(Section):
    """[run]: what the run is called and where it keeps its files."""

    name: RunName = "federation"
    dir: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    keep_versions: PositiveInt = 10

    @property
    def path(self) -> Path:
        """The run directory."""
        return Path(self.dir) / self.name

    @property
    def sites(self) -> Path:
        """The invited sites: beside the run directory, for they outlive a run."""
        return Path(self.dir) / f"{self.name}.sites.db"


class BrokerConfig(Section):
    """[broker]: RabbitMQ; `ca` verifies an amqps:// server, `management` makes sites' users."""

    url: str = "amqp://guest:guest@127.0.0.1:5672/"
    ca: str | None = None
    management: str | None = None
    public_url: str | None = None
    queue_type: Literal["classic", "quorum"] = "classic"
    site_mib: Annotated[int, Field(ge=1)] = 1024


class StoreConfig(Section):
    """[store]: Redis; `ca` verifies a rediss:// server."""

    url: str = "redis://127.0.0.1:6379/0"
    ca: str | None = None
    public_url: str | None = None


class OperationsConfig(Section):
    """[operations]: what whoever runs the processes looks at."""

    log: Literal["lines", "json"] = "lines"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    bind: str = "127.0.0.1"


class ModelConfig(Section):
    """[model]: the frozen base and its LoRA factors; `lora = false` trains all parameters."""

    name: Annotated[str, Field(min_length=1)] = "offline:gpt2-tiny"
    revision: str | None = None
    max_length: MaxLength = 256
    lora: Annotated[
        LoraSpec | None, BeforeValidator(lambda value: None if value is False else value)
    ] = LoraSpec()


class DataConfig(Section):
    """[data]: the rows, and how they are dealt to clients."""

    sft: str = "synthetic"
    va: str = "synthetic"
    cls: str = "synthetic"
    rows: Annotated[int, Field(ge=8)] = 1500
    labels: Annotated[tuple[ClassName, ...], BeforeValidator(list_to_tuple)] = ()
    columns: dict[str, str] = Field(default_factory=dict)
    dir: str | None = None
    clients: PositiveInt = 4
    alpha: PositiveFloat = 0.5
    partition: Literal["topic", "length", "label"] = "topic"
    heldout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1

    def source(self, kind: RowKind) -> str:
        """Where the rows of a kind come from."""
        return {"sft": self.sft, "va": self.va, "cls": self.cls}[kind]


class PhaseConfig(Section):
    """[[phase]]: a span of versions with one objective."""

    objective: ObjectiveName = "sft"
    versions: PositiveInt = 16
    local_steps: LocalSteps = 5
    local_epochs: LocalEpochs = 0
    lr: LearningRate = 6e-3
    lr_schedule: Literal["cosine", "constant"] = "cosine"
    batch_size: BatchSize = 16
    max_grad_norm: PositiveFloat = 1.0
    prox_mu: NonNegativeFloat = 0.0
    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    preference_loss: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    sft_weight: Annotated[float, Field(ge=0, le=100)] = 0.0
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 1.0

    @property
    def kind(self) -> RowKind:
        """The rows that this phase learns from."""
        return ROW_KINDS[self.objective]

    @property
    def dpo(self) -> DpoSettings | None:
        """The settings of preference optimisation; None for another objective."""
        if self.objective != "dpo":
            return None
        return DpoSettings(
            beta=self.beta,
            loss=self.preference_loss,
            label_smoothing=self.label_smoothing,
            sft_weight=self.sft_weight,
        )

    @model_validator(mode="after")
    def _one_length(self) -> PhaseConfig:
        if (self.local_steps > 0) == (self.local_epochs > 0):
            raise ValueError("set exactly one of local_steps and local_epochs above 0")
        return self


class ScheduleConfig(Section):
    """[schedule]: one loop, two knobs (buffer_size, reissue), and the time limits."""

    concurrency: PositiveInt = 4
    buffer_size: PositiveInt | None = None
    reissue: Literal["immediate", "commit"] = "immediate"
    quorum: PositiveInt | None = None
    round_deadline_s: PositiveFloat = 600.0
    flush_s: PositiveFloat = 120.0
    lease_s: PositiveFloat = 60.0
    task_deadline_s: PositiveFloat = 3600.0
    max_staleness: Annotated[int, Field(ge=0)] = 20

    @property
    def buffer(self) -> int:
        """K, the updates per version: all of a round in sync mode, half the tasks otherwise."""
        if self.buffer_size is not None:
            return self.buffer_size
        return self.concurrency if self.reissue == "commit" else max(1, self.concurrency // 2)

    @model_validator(mode="after")
    def _possible(self) -> ScheduleConfig:
        if self.reissue == "commit" and self.buffer > self.concurrency:
            raise ValueError("buffer_size is over concurrency: such a round never fills")
        if self.quorum is not None and self.quorum > self.buffer:
            raise ValueError("quorum is over the buffer size")
        return self


class AggregationConfig(Section):
    """[aggregation]: FCCL weights, staleness and clipping."""

    contribution_mode: Literal["loss", "size", "combined"] = "combined"
    contribution_source: Literal["train", "holdout"] = "train"
    score_scale: Literal["raw", "log"] = "log"
    # Smaller ones overflow the exponent of `raw`, and are winner takes all long before.
    temperature: Annotated[float, Field(ge=1e-6, allow_inf_nan=False)] = 1.0
    floor: Fraction = 0.1
    cap: PositiveFloat = 3.0
    staleness_exponent: NonNegativeFloat = 0.5
    server_lr: PositiveFloat = 1.0
    clip: PositiveFloat = 1.5
    over_norm: Literal["clip", "reject"] = "clip"


class CodecConfig(Section):
    """[codec]: how tensors travel."""

    update: CodecName = "int8"
    adapter: Literal["fp32", "bf16"] = "fp32"


def _dotted(value: Any, prefix: str = "") -> Any:
    """Tables in tables as one table: `model.name` without quotation marks means the same."""
    if not isinstance(value, dict):
        return value
    pairs: dict[str, Any] = {}
    for key, inner in value.items():
        flat = isinstance(inner, dict) and inner
        pairs |= _dotted(inner, f"{prefix}{key}.") if flat else {f"{prefix}{key}": inner}
    return pairs


class IncrementalConfig(Section):
    """[incremental]: learning from users between rounds; read by workers and front doors."""

    enabled: bool = True
    push: bool = False
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    lr: LearningRate | None = None
    batch_size: BatchSize = 8
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.5
    reservoir: Annotated[int, Field(ge=0, le=100_000)] = 500
    gate: bool = True
    anchor_tolerance: Annotated[float, Field(ge=1, le=10)] = 1.02
    max_norm: PositiveFloat = 0.5
    validator: str = ""
    validator_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    items_per_minute: PositiveInt = 600
    max_chars: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_waiting: PositiveInt = 10_000


class SamplesConfig(Section):
    """[samples]: held-out prompts that the base and some versions answer while the run goes on."""

    prompts: Annotated[int, Field(ge=0, le=20)] = 3
    new_tokens: Annotated[int, Field(ge=1, le=1000)] = 40
    every: PositiveInt | None = None
    model_mb: PositiveInt = 2000


class FederationConfig(Section):
    """The whole of `federation.toml`."""

    run: RunConfig = RunConfig()
    broker: BrokerConfig = BrokerConfig()
    store: StoreConfig = StoreConfig()
    operations: OperationsConfig = OperationsConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    phase: Annotated[
        tuple[PhaseConfig, ...],
        Field(min_length=1, max_length=100),
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = (PhaseConfig(),)
    schedule: ScheduleConfig = ScheduleConfig()
    aggregation: AggregationConfig = AggregationConfig()
    codec: CodecConfig = CodecConfig()
    incremental: IncrementalConfig = IncrementalConfig()
    samples: SamplesConfig = SamplesConfig()
    # Dotted keys and what they are while the model hub is out of reach: see `without_hub`.
    offline: Annotated[dict[str, Override], BeforeValidator(_dotted)] = Field(default_factory=dict)

    @property
    def kinds(self) -> tuple[RowKind, ...]:
        """The kinds of rows that the plan needs, in the order of its phases."""
        return tuple(dict.fromkeys(phase.kind for phase in self.phase))

    @property
    def classifies(self) -> bool:
        """Whether the run trains a classifier (an encoder with a head), not a causal model."""
        return self.phase[0].objective == "classification"

    @model_validator(mode="after")
    def _one_family(self) -> FederationConfig:
        if len({phase.objective == "classification" for phase in self.phase}) > 1:
            raise ValueError(
                "phases of classification and of sft or dpo need different models: make two runs"
            )
        return self


def load(path: Path | None, environ: Mapping[str, str] | None = None) -> FederationConfig:
    """The configuration of a file (defaults without one), with the environment's overrides.

    Raises:
        ConfigError: The file is missing or no TOML; a key is unknown or has a wrong value.
    """
    table = _read(path) if path is not None else {}
    variables = _override(table, os.environ if environ is None else environ)
    where = str(path) if path is not None else "configuration"
    return parse(table, where, variables)


def parse(
    table: Mapping[str, Any], where: str, variables: Mapping[str, str] = MappingProxyType({})
) -> FederationConfig:
    """Validate a table.

    Args:
        table: What a file and the environment's overrides come to.
        where: Names its origin in errors.
        variables: Names the environment variable instead, for the keys that one has set.

    Raises:
        ConfigError: A key is unknown or has a wrong value.
    """
    try:
        config = FederationConfig.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        keys = list(accumulate((str(part) for part in first["loc"]), "{}.{}".format))
        key = keys[-1] if keys else ""
        where = next((variables[each] for each in reversed(keys) if each in variables), where)
        if first["type"] == "extra_forbidden":
            raise ConfigError(
                f"{where}: unknown key {key}", "`fccl init` writes a file with every key"
            ) from None
        raise ConfigError(f"{where}: {explain(error)}", "see the comments of `fccl init`") from None
    without_hub(config, where)  # said now, and not on the day when the hub is out of reach
    return config


def without_hub(config: FederationConfig, where: str = "configuration") -> FederationConfig:
    """The configuration with the overrides of [offline] applied.

    Raises:
        ConfigError: One of them names no key, or has a wrong value.
    """
    if not config.offline:
        return config
    where = f"{where}: [offline]"
    table = config.model_dump(mode="json")
    for key, value in config.offline.items():
        _put(table, key, value, f'{where}: "{key}"')
    return parse(table | {"offline": {}}, where)


def dump(config: FederationConfig) -> str:
    """The configuration as TOML, without comments: what a run directory keeps."""
    lines: list[str] = []
    whole = config.model_dump(mode="json", exclude_none=True)
    whole["model"].setdefault("lora", False)  # TOML has no null
    for name, value in whole.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            nested = {k: v for k, v in table.items() if isinstance(v, dict)}
            lines += [f"{k} = {_literal(v)}" for k, v in table.items() if k not in nested]
            for key, inner in nested.items():
                lines.append(f"[{name}.{key}]")
                lines += [f"{_key(k)} = {_literal(v)}" for k, v in inner.items()]
            lines.append("")
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _literal(name)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which JSON leaves bare.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", f"`fccl init {path}` writes one") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a directory", "name the federation.toml in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})", "check the file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", "mend the TOML at that place") from None


def _override(table: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values into the table; the variable of every key that one has set."""
    found: dict[str, str] = {}
    for variable in sorted(environ):
        if not variable.startswith("FCCL_") or "__" not in variable:
            continue
        *parents, leaf = variable.removeprefix("FCCL_").lower().split("__")
        node: Any = table
        for depth, key in enumerate(parents, 1):
            if isinstance(node, dict) and key not in node:  # a table that no file speaks of
                found[".".join(parents[:depth])] = variable
            node = _child(node, key, variable)
        _assign(node, leaf, environ[variable], variable)
        found[".".join([*parents, leaf])] = variable
    return found


def _put(table: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    """Set one key of a whole configuration; `phase.0.lr` is a key of the first phase."""
    *parents, leaf = dotted.split(".")
    if (parents or [leaf])[0] in _FIXED:
        raise ConfigError(f"{where} does not depend on the hub", "set it in its own table")
    node: Any = table
    for key in parents:
        node = _child(node, key, where)
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: an entry number is missing", 'e.g. "phase.0.lr"')
    node[leaf] = value


def _child(node: Any, key: str, variable: str) -> Any:
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(f"{variable}: the file has no entry {key} there", "check the number")
        return node[int(key)]
    if not isinstance(node, dict):
        raise ConfigError(f"{variable}: there is no table above {key}", "check the file")
    child = node.setdefault(key, [{}] if key == "phase" else {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"{variable}: {key} is no table", "check the name")
    return child


def _assign(node: Any, leaf: str, text: str, variable: str) -> None:
    if not isinstance(node, dict):
        raise ConfigError(f"{variable}: an entry number is missing", "e.g. FCCL_PHASE__0__LR")
    try:
        node[leaf] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        node[leaf] = text  # a bare word is a string
