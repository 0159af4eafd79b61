"""Check that every setting of a new run has an effect.

A setting that silently does nothing misleads its author. Defaults are always accepted, because the
file that `fccl init` writes has every key. Only new runs are checked, because runs of earlier
releases may have such settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config.config import FederationConfig, PhaseConfig
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


def check_effect(config: FederationConfig) -> None:
    """Raise `ConfigError` for the first setting that has no effect or contradicts another one."""
    for what, remedy in _contradictions(config):
        raise ConfigError(what, remedy)


def _contradictions(config: FederationConfig) -> Iterator[tuple[str, str]]:
    for index, phase in enumerate(config.phase):
        yield from _of_phase(f"phase.{index}", phase)
    yield from _of_model(config)
    if config.data.labels and not config.classifies:
        yield "data.labels has no effect: no phase classifies", "leave it out"
    schedule = config.schedule
    if schedule.quorum is not None and schedule.reissue != "commit":
        yield (
            'schedule.quorum has no effect without rounds, with schedule.reissue = "immediate"',
            'leave it out, or set schedule.reissue = "commit"',
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
