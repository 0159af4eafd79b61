"""Check of `fccl doctor` whether training the run's model fits into the memory of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cli.doctor.checks import CheckContext, CheckResult
from common.byte_sizes import format_bytes
from common.config.config import FederationConfig, PhaseConfig
from common.errors import ModelError
from common.memory import available_memory
from learning.models.memory_estimate import ModelShape, Workload, estimate, read_shape

_REMEDY = (
    "set model.quantization or a lower model.max_length in the run's configuration,"
    " or close other programs"
)


def check_memory(context: CheckContext) -> CheckResult:
    """Compare an estimate of the memory for training with what is available here."""
    from learning.training.device import detect

    path = find_model(context)
    if path is None:
        return CheckResult("memory", "ok", "not estimated: the model is not on this machine yet")
    compute = detect()
    available: int | None
    if compute.device.type == "cuda":
        import torch

        available = torch.cuda.mem_get_info(compute.device)[0]
    else:
        available = available_memory()
    return judge(context.config, read_shape(path), available, autocast=compute.autocast)


def judge(
    config: FederationConfig, model: ModelShape, available: int | None, *, autocast: bool
) -> CheckResult:
    """Return the result for a model and so many available bytes; None if that is not known."""
    phase = max(config.phase, key=lambda each: each.batch_size * _rows(each))
    whole = _workload(config, phase, autocast=autocast)
    needed = estimate(model, whole).total
    text = f"training takes about {format_bytes(needed)} with whole batches of {phase.batch_size}"
    if available is None:
        return CheckResult("memory", "ok", text)
    have = f"{format_bytes(available)} are available"
    if needed <= available:
        return CheckResult("memory", "ok", f"{text}; {have}")
    for setting, work in _smaller(whole, phase):
        smaller = estimate(model, work).total
        if smaller <= available:
            text = f"{text}, {format_bytes(smaller)} with {setting}; {have}"
            return CheckResult("memory", "warn", text, f"set {setting} on this worker")
    least = format_bytes(smaller)
    return CheckResult("memory", "warn", f"{text}, {least} with {setting}; {have}", _REMEDY)


def _smaller(whole: Workload, phase: PhaseConfig) -> list[tuple[str, Workload]]:
    """Return settings of a worker that take less memory, the fastest first."""
    found = []
    size = phase.batch_size // 2
    while size:
        rows = size * _rows(phase)
        found.append((f"micro_batch = {size}", replace(whole, rows=rows)))
        size //= 2
    least = replace(whole, rows=_rows(phase), checkpointing=True)
    return [*found, ("micro_batch = 1 and checkpointing = true", least)]


def _workload(config: FederationConfig, phase: PhaseConfig, *, autocast: bool) -> Workload:
    from learning.models.precision import weight_format

    held = weight_format(config.model.precision, autocast=autocast)
    return Workload(
        rows=phase.batch_size * _rows(phase),
        length=config.model.max_length,
        lora=config.model.lora,
        weight_bytes=held.dtype.itemsize,
        quantization=held.quantization,
        autocast=autocast,
        generates=phase.objective != "classification",
        frozen=config.aggregation.rule == "ffa",
    )


def _rows(phase: PhaseConfig) -> int:
    return 2 if phase.objective == "dpo" else 1


def find_model(context: CheckContext) -> Path | None:
    """Return the directory of the run's model, if it is on this machine."""
    from learning.models import base, hub
    from learning.offline import builder

    model, name = context.config.model, context.config.model.name
    if name.startswith(builder.PREFIX):
        try:
            return builder.find_built(name, context.cache)
        except ModelError:  # its package is needed at the coordinator only
            return None
    if Path(name).expanduser().is_dir():
        return base.resolve(name, None, context.cache, lambda message, fraction: None).path
    if not hub.is_hub_id(name):
        return None
    snapshot = hub.cached_snapshot(name, model.revision)
    return None if snapshot is None else snapshot.path
