"""Check that every setting of a new run has an effect.

A setting that silently does nothing misleads its author. Defaults are always accepted, because the
file that `fccl init` writes has every key. Only new runs are checked, because runs of earlier
releases may have such settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.aggregation_effect import aggregation_problems, changed_keys
from common.config.config import FederationConfig, PhaseConfig
from common.config.privacy_conflicts import privacy_conflicts
from common.config.rule_effect import of_rule
from common.config.schedule_effect import schedule_problems
from common.errors import ConfigError
from common.protocol.fields import ObjectiveName
from common.protocol.tasks import LoraSpec

_OBJECTIVES: dict[str, tuple[ObjectiveName, ...]] = {
    "beta": ("dpo", "kto"),
    "preference_loss": ("dpo",),
    "label_smoothing": ("dpo",),
    "sft_weight": ("dpo",),
    "good_weight": ("kto",),
    "bad_weight": ("kto",),
    "logit_adjustment": ("classification",),
    "turns": ("sft",),
}
"""Keys of [[phase]] that only some objectives read."""
_OF_DEALING = ("sft", "va", "kto", "cls", "rows", "dir", "alpha", "partition", "heldout")
"""Keys of [data] that only a run reads whose rows are dealt by the coordinator."""
_JOINED_SCORES = ("server", "federated", "cosine")
"""Contribution sources that are measured elsewhere than at the client itself."""


def check_effect(config: FederationConfig) -> None:
    """Raise `ConfigError` for the first setting that has no effect or contradicts another one.

    It is also raised where a setting needs a package that is not installed.
    """
    for what, remedy in _contradictions(config):
        raise ConfigError(what, remedy)


def _contradictions(config: FederationConfig) -> Iterator[tuple[str, str]]:
    for index, phase in enumerate(config.phase):
        yield from _of_phase(f"phase.{index}", phase)
    for name in config.objectives.keys() - set(config.objective_plugins):
        yield f"[objectives.{name}] has no effect: no phase has that plug-in", "leave it out"
    for name in config.aggregators.keys() - {config.aggregation.rule}:
        yield (
            f"[aggregators.{name}] has no effect: aggregation.rule is {config.aggregation.rule}",
            "leave it out",
        )
    yield from _of_model(config)
    if config.data.labels and not config.classifies:
        yield "data.labels has no effect: no phase classifies", "leave it out"
    yield from _of_data(config)
    yield from _of_evaluation(config)
    yield from _of_contribution(config)
    yield from of_rule(config)
    yield from aggregation_problems(config)
    yield from privacy_conflicts(config)
    yield from schedule_problems(config)


def _of_data(config: FederationConfig) -> Iterator[tuple[str, str]]:
    data, rows = config.data, config.evaluation.rows
    if not config.sites_only:
        if rows is not None:
            yield (
                "evaluation.rows has no effect: a run that deals rows holds some of them out",
                "leave it out and set their share with data.heldout, or set data.clients = 0",
            )
        return
    for key in changed_keys(data, _OF_DEALING):
        yield (
            f"data.{key} has no effect: with data.clients = 0 all rows stay at the sites",
            "leave it out",
        )
    if data.columns and rows is None:
        yield (
            "data.columns has no effect: with data.clients = 0 sites name their own columns",
            "leave it out",
        )
    if config.classifies and len(data.labels) < 2:
        yield (
            "data.labels is missing: with data.clients = 0 no rows tell the coordinator the classes"
            " of this run",
            'name all of them: data.labels = ["negative", "positive"]',
        )
    if rows == "synthetic":
        yield "evaluation.rows is not a file", "name a file of held-out rows, or leave it out"


def _of_evaluation(config: FederationConfig) -> Iterator[tuple[str, str]]:
    if config.evaluates_at_sites:
        return
    scores = config.aggregation.contribution_source == "federated"
    keys = ("every",) if scores else ("every", "max_rows", "deadline_s")
    for key in changed_keys(config.evaluation, keys):
        yield (
            f"evaluation.{key} has no effect: clients evaluate no versions in this run",
            "leave it out, or set evaluation.federated = true",
        )


def _of_contribution(config: FederationConfig) -> Iterator[tuple[str, str]]:
    aggregation = config.aggregation
    source = aggregation.contribution_source
    mode = aggregation.contribution_mode
    if source in _JOINED_SCORES and mode in ("size", "uniform"):
        yield (
            f'aggregation.contribution_source = "{source}" has no effect with contribution_mode ='
            f' "{mode}", which needs no scores',
            'set contribution_mode to "loss" or "combined", or leave the source out',
        )
    if source not in ("server", "federated"):
        for key in changed_keys(aggregation, ("score_deadline_s",)):
            yield (
                f"aggregation.{key} has no effect: contribution_source is {source}",
                'leave it out; scores of "server" and "federated" have to be waited for',
            )
    if source == "cosine" and config.schedule.buffer == 1:
        yield (
            'aggregation.contribution_source = "cosine" compares updates of one version, but'
            " schedule.buffer_size is 1",
            "set schedule.buffer_size to 2 or more, or choose another source",
        )
    if source == "server" and not config.has_heldout:
        yield (
            'aggregation.contribution_source = "server" needs held-out rows of the coordinator',
            "name a file of them with evaluation.rows, or choose another source",
        )


def _of_phase(where: str, phase: PhaseConfig) -> Iterator[tuple[str, str]]:
    for key, objectives in _OBJECTIVES.items():
        changed = getattr(phase, key) != PhaseConfig.model_fields[key].default
        if changed and phase.objective not in objectives:
            yield (
                f"{where}.{key} has no effect with the objective {phase.objective}",
                f"leave it out: it belongs to {' and '.join(objectives)}",
            )
    if phase.objective == "kto" and phase.batch_size == 1:
        yield (
            f"{where}.batch_size is 1, but kto estimates the divergence from the reference from"
            " several answers",
            "set it to 2 or more; a site saves memory with a smaller micro-batch",
        )
    if phase.label_smoothing and phase.preference_loss == "ipo":
        yield (
            f'{where}.label_smoothing has no effect with preference_loss = "ipo"',
            'set it to 0, or preference_loss to "sigmoid"',
        )


def _of_model(config: FederationConfig) -> Iterator[tuple[str, str]]:
    model = config.model
    if model.adapter is not None and model.lora is None:
        yield (
            "model.adapter needs LoRA, but model.lora = false trains all parameters",
            "merge the adapter into its base and set model.name to the result",
        )
    if model.lora is None and model.quantization != "none":
        yield (
            f'model.quantization = "{model.quantization}" needs LoRA, but model.lora = false trains'
            " all parameters, and quantized ones cannot be trained",
            'set model.quantization = "none", or give model.lora',
        )
    if model.lora is None and model.dtype == "bfloat16":
        yield (
            'model.dtype = "bfloat16" is for frozen weights, but model.lora = false trains all'
            " parameters, and steps of training are too small for bfloat16",
            'set model.dtype = "auto", or give model.lora',
        )
    judged = all(phase.objective in ("dpo", "kto") for phase in config.phase)
    if model.lora and model.lora.dropout not in (0.0, LoraSpec().dropout) and judged:
        yield (
            "model.lora.dropout has no effect with dpo and kto, which train without dropout",
            "set it to 0",
        )
    if config.classifies and model.prompt != "auto":
        yield "model.prompt has no effect on classification, which has no prompts", "leave it out"
