"""The sections of a federation's configuration, as frozen models with their defaults.

Unknown keys and wrong types are errors. `common.config.loader` reads the models from a file and
the environment; `common.config.template` documents every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from common import urls
from common.config.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section
from common.config.simulation import SimulationConfig
from common.protocol.fields import (
    ROW_KINDS,
    BatchSize,
    ClassName,
    CodecName,
    DtypeName,
    Fraction,
    Identifier,
    LearningRate,
    LocalEpochs,
    LocalSteps,
    MaxLength,
    ObjectiveName,
    QuantizationName,
    RowKind,
    RunName,
    list_to_tuple,
)
from common.protocol.tasks import (
    DpoSettings,
    KtoSettings,
    LearnedTurns,
    LoraSpec,
    ModelPrecision,
    PluginOptions,
)
from common.text import is_one_line

ContributionMode = Literal["loss", "size", "combined", "uniform"]
ContributionSource = Literal["train", "holdout", "server", "federated", "cosine"]
OptimizerName = Literal["none", "momentum", "adagrad", "adam", "yogi"]
RobustRuleName = Literal[
    "none", "cosine-filter", "trimmed-mean", "median", "krum", "multi-krum", "centered-clip"
]
StalenessName = Literal["polynomial", "constant", "hinge", "exponential"]


def _auto_or_bool(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError('must be "auto", true or false')


def _check_one_line(text: str) -> str:
    if not is_one_line(text):
        raise ValueError("must be one line of printable characters")
    return text


def url_of(kind: urls.UrlKind) -> AfterValidator:
    """Return a validator of the URLs of one kind of server, which are kept as they are."""

    def check(text: str) -> str:
        urls.parse_url(text, kind)
        return text

    return AfterValidator(check)


class RunConfig(Section):
    """[run]: the name of the run, who coordinates it, and where its files are kept."""

    name: RunName = "federation"
    dir: str = "runs"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    keep_versions: PositiveInt = 10
    keep_updates: bool = False
    contact: Annotated[str, Field(max_length=200), AfterValidator(_check_one_line)] = ""

    @property
    def path(self) -> Path:
        """The run directory."""
        return Path(self.dir) / self.name

    @property
    def sites(self) -> Path:
        """The database of invited sites, beside the run directory because sites outlive a run."""
        return Path(self.dir) / f"{self.name}.sites.db"


class BrokerConfig(Section):
    """[broker]: RabbitMQ, and its management API, which creates the users of invited sites."""

    url: Annotated[str, url_of(urls.BROKER)] = "amqp://guest:guest@127.0.0.1:5672/"
    ca: str | None = None
    management: Annotated[str, url_of(urls.HTTP)] | None = None
    public_url: Annotated[str, url_of(urls.SITE_BROKER)] | None = None
    queue_type: Literal["classic", "quorum"] = "classic"
    site_mib: Annotated[int, Field(ge=1, le=2**30)] = 1024


class StoreConfig(Section):
    """[store]: Redis."""

    url: Annotated[str, url_of(urls.STORE)] = "redis://127.0.0.1:6379/0"
    ca: str | None = None
    public_url: Annotated[str, url_of(urls.SITE_STORE)] | None = None


class OperationsConfig(Section):
    """[operations]: logs, metrics and health, for operators."""

    log: Literal["lines", "json"] = "lines"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    bind: str = "127.0.0.1"


class ModelConfig(Section):
    """[model]: the frozen base model and its LoRA factors; `lora = false` trains all parameters."""

    name: Annotated[str, Field(min_length=1)] = "offline:gpt2-tiny"
    revision: str | None = None
    max_length: MaxLength = 256
    dtype: DtypeName = "auto"
    quantization: QuantizationName = "none"
    prompt: Annotated[str, Field(min_length=1)] = "auto"  # or "chat", "alpaca", a Jinja file
    adapter: str | None = None  # directory of an exported adapter to begin with
    ranks: dict[str, Annotated[int, Field(ge=1, le=1024)]] = Field(default_factory=dict)
    lora: Annotated[
        LoraSpec | None, BeforeValidator(lambda value: None if value is False else value)
    ] = LoraSpec()

    @property
    def precision(self) -> ModelPrecision | None:
        """How the base model is held; None for the defaults, which tasks need not carry."""
        if (self.dtype, self.quantization) == ("auto", "none"):
            return None
        return ModelPrecision(dtype=self.dtype, quantization=self.quantization)


class DataConfig(Section):
    """[data]: the rows, and how they are partitioned among clients."""

    sft: str = "synthetic"
    va: str = "synthetic"
    kto: str = "synthetic"
    cls: str = "synthetic"
    rows: Annotated[int, Field(ge=8, lt=2**31)] = 1500
    labels: Annotated[tuple[ClassName, ...], BeforeValidator(list_to_tuple)] = ()
    columns: dict[str, str] = Field(default_factory=dict)
    dir: str | None = None
    clients: Annotated[int, Field(ge=0, lt=2**31)] = 4  # 0: all rows stay at the sites
    alpha: PositiveFloat = 0.5
    partition: Literal["topic", "length", "label"] = "topic"
    heldout: Annotated[float, Field(gt=0, lt=0.5)] = 0.1

    def source(self, kind: RowKind) -> str:
        return {"sft": self.sft, "va": self.va, "kto": self.kto, "cls": self.cls}[kind]


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
    good_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    bad_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 1.0
    turns: LearnedTurns = "all"
    plugin: Identifier | None = None  # changes how the objective is trained

    @property
    def kind(self) -> RowKind:
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

    @property
    def kto(self) -> KtoSettings | None:
        """The settings of learning from ratings; None for another objective."""
        if self.objective != "kto":
            return None
        return KtoSettings(beta=self.beta, good_weight=self.good_weight, bad_weight=self.bad_weight)

    @model_validator(mode="after")
    def _one_length(self) -> PhaseConfig:
        if (self.local_steps > 0) == (self.local_epochs > 0):
            raise ValueError("set exactly one of local_steps and local_epochs above 0")
        return self


class ScheduleConfig(Section):
    """[schedule]: one loop, two knobs (buffer_size, reissue), and the time limits."""

    concurrency: PositiveInt = 4
    min_clients: PositiveInt | None = None
    buffer_size: PositiveInt | None = None
    reissue: Literal["immediate", "commit"] = "immediate"
    quorum: PositiveInt | None = None
    round_deadline_s: PositiveFloat = 600.0
    flush_s: PositiveFloat = 120.0
    lease_s: PositiveFloat = 60.0
    task_deadline_s: PositiveFloat = 3600.0
    max_staleness: Annotated[int, Field(ge=0, lt=2**31)] = 20
    adaptive_steps: (
        Annotated[tuple[LocalSteps, LocalSteps], BeforeValidator(list_to_tuple)] | None
    ) = None

    @property
    def buffer(self) -> int:
        """K, the updates per version: a whole round in sync mode, else half the concurrency."""
        if self.buffer_size is not None:
            return self.buffer_size
        return self.concurrency if self.reissue == "commit" else max(1, self.concurrency // 2)

    @model_validator(mode="after")
    def _possible(self) -> ScheduleConfig:
        if self.reissue == "commit" and self.buffer > self.concurrency:
            raise ValueError("buffer_size is above concurrency: such a round never fills")
        if self.quorum is not None and self.quorum > self.buffer:
            raise ValueError("quorum is above the buffer size")
        return self


class OptimizerConfig(Section):
    """[aggregation.optimizer]: the server optimizer; its learning rate is `server_lr`."""

    name: OptimizerName = "none"
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: PositiveFloat = 1e-3


class RobustConfig(Section):
    """[aggregation.robust]: a rule that bounds what faulty or hostile clients can do."""

    rule: RobustRuleName = "none"
    share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2  # of a buffer's updates, assumed faulty
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.0  # cosine-filter
    radius: PositiveFloat | None = None  # centered-clip; None: the median distance
    iterations: Annotated[int, Field(ge=1, le=10)] = 3  # centered-clip


BUILT_IN_RULES = ("factor", "ffa", "product")
"""Aggregation rules of fccl itself; any other name is that of a plug-in."""


class AggregationConfig(Section):
    """[aggregation]: how updates become the next version."""

    rule: Identifier = "factor"
    contribution_mode: ContributionMode = "combined"
    contribution_source: ContributionSource = "train"
    score_deadline_s: PositiveFloat = 60.0
    score_scale: Literal["raw", "log"] = "log"
    # Smaller values overflow the exponent of `raw`; they amount to winner-takes-all anyway.
    temperature: Annotated[float, Field(ge=1e-6, allow_inf_nan=False)] = 1.0
    floor: Fraction = 0.1
    cap: PositiveFloat = 3.0
    staleness: StalenessName = "polynomial"
    staleness_exponent: NonNegativeFloat = 0.5
    staleness_threshold: Annotated[int, Field(ge=0, lt=2**31)] = 4
    server_lr: PositiveFloat = 1.0
    clip: PositiveFloat = 1.5
    over_norm: Literal["clip", "reject"] = "clip"
    cache_updates: bool = False
    optimizer: OptimizerConfig = OptimizerConfig()
    robust: RobustConfig = RobustConfig()

    @property
    def weighs_equally(self) -> bool:
        """Whether all clients count the same, because weights would break or bypass the rule."""
        return self.cache_updates or self.robust.rule in ("trimmed-mean", "median", "krum")


class PrivacyConfig(Section):
    """[privacy]: differential privacy of a client's whole data, which `clip_norm` switches on."""

    clip_norm: PositiveFloat | None = None
    noise_multiplier: NonNegativeFloat = 1.0
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    max_versions: PositiveInt | None = None

    @property
    def enabled(self) -> bool:
        return self.clip_norm is not None


class EvaluationConfig(Section):
    """[evaluation]: how good versions are, on the sites' rows and on the coordinator's."""

    budget: Fraction = 0.15
    federated: Annotated[Literal["auto"] | bool, BeforeValidator(_auto_or_bool)] = "auto"
    every: PositiveInt | None = None
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 200  # of each client, per evaluation
    deadline_s: PositiveFloat = 600.0
    rows: Annotated[str, Field(min_length=1)] | None = None  # held-out rows of the coordinator


class CodecConfig(Section):
    """[codec]: how tensors are encoded on the wire."""

    update: CodecName = "int8"
    adapter: Literal["fp32", "bf16"] = "fp32"


class IncrementalConfig(Section):
    """[incremental]: learning from users between rounds; read by workers and `fccl learn`."""

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
    """[samples]: held-out prompts that the base model and some versions answer during a run."""

    prompts: Annotated[int, Field(ge=0, le=20)] = 3
    prompts_file: Annotated[str, Field(min_length=1)] | None = None
    new_tokens: Annotated[int, Field(ge=1, le=1000)] = 40
    every: PositiveInt | None = None
    model_mb: PositiveInt = 2000


class EvaluatorConfig(Section):
    """[evaluators.NAME]: when a plug-in evaluates; further keys are its own options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    every: PositiveInt | None = None
    deadline_s: PositiveFloat = 3600.0

    @property
    def options(self) -> Mapping[str, Any]:
        """The plug-in's own options."""
        return self.model_extra or {}


def _dotted(value: Any, prefix: str = "") -> Any:
    # `model.name` means the same with and without quotation marks.
    if not isinstance(value, dict):
        return value
    pairs: dict[str, Any] = {}
    for key, inner in value.items():
        flat = isinstance(inner, dict) and inner
        pairs |= _dotted(inner, f"{prefix}{key}.") if flat else {f"{prefix}{key}": inner}
    return pairs


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
        BeforeValidator(list_to_tuple),
    ] = (PhaseConfig(),)
    schedule: ScheduleConfig = ScheduleConfig()
    aggregation: AggregationConfig = AggregationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    codec: CodecConfig = CodecConfig()
    incremental: IncrementalConfig = IncrementalConfig()
    samples: SamplesConfig = SamplesConfig()
    simulation: SimulationConfig = SimulationConfig()
    trackers: dict[Identifier, dict[str, Any]] = Field(default_factory=dict)  # options, by name
    evaluators: dict[Identifier, EvaluatorConfig] = Field(default_factory=dict)
    objectives: dict[Identifier, PluginOptions] = Field(default_factory=dict)  # options, by name
    aggregators: dict[Identifier, PluginOptions] = Field(default_factory=dict)
    # Dotted keys and their values while the model hub cannot be reached; see
    # `common.config.loader.apply_offline`.
    offline: Annotated[
        dict[str, str | int | float | bool | list[Any]], BeforeValidator(_dotted)
    ] = Field(default_factory=dict)

    @property
    def kinds(self) -> tuple[RowKind, ...]:
        """The kinds of rows that the plan needs, in the order of its phases."""
        return tuple(dict.fromkeys(phase.kind for phase in self.phase))

    @property
    def objective_plugins(self) -> tuple[str, ...]:
        """The names of the plug-ins that change how objectives are trained."""
        return tuple(dict.fromkeys(phase.plugin for phase in self.phase if phase.plugin))

    @property
    def classifies(self) -> bool:
        """Whether the run trains a classifier (an encoder with a head), not a causal model."""
        return self.phase[0].objective == "classification"

    @property
    def sites_only(self) -> bool:
        """Whether the coordinator deals no rows, so that all clients are those of sites."""
        return self.data.clients == 0

    @property
    def has_heldout(self) -> bool:
        """Whether the coordinator has held-out rows: those of `evaluation.rows`, or dealt ones."""
        return not self.sites_only or self.evaluation.rows is not None

    @property
    def has_prompts(self) -> bool:
        """Whether versions answer prompts during the run: those of a file, or held-out rows."""
        file = self.samples.prompts_file is not None
        return self.samples.prompts > 0 and (file or self.has_heldout)

    @property
    def min_clients(self) -> int:
        """The number of live clients below which nothing is issued or committed."""
        if self.schedule.min_clients is not None:
            return self.schedule.min_clients
        return 2 if self.sites_only else 1

    @property
    def evaluates_at_sites(self) -> bool:
        """Whether clients evaluate versions on their own validation rows."""
        federated = self.evaluation.federated
        return self.sites_only if federated == "auto" else federated

    @model_validator(mode="after")
    def _one_family(self) -> FederationConfig:
        if len({phase.objective == "classification" for phase in self.phase}) > 1:
            raise ValueError(
                "classification and the other objectives need different models: start two runs"
            )
        return self
