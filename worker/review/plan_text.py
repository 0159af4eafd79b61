"""The plan of a run as plain lines: what is trained, what a site fetches, and what leaves it.

What the coordinator claims comes from its plan. What leaves the machine is taken from the records
that this release sends, so that no field is forgotten.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from common.evaluation.sums import EvaluationSums
from common.privacy import NOT_COVERED
from common.protocol.fields import Record
from common.protocol.heartbeat import Heartbeat
from common.protocol.run_plan import PlannedPhase, PlannedPrivacy, RunPlan
from common.protocol.updates import ContributionStats, TaskSeconds
from worker.data.expected_rows import FIELDS
from worker.settings.accepted_models import label

WIDTH = 100
_HEAD = 14  # characters of the first column
_NEVER = (
    "rows, their text or their tokens; answers of a model to them; what users typed; names and"
    " paths of files and folders"
)


def plan_lines(plan: RunPlan) -> list[str]:
    """Return the lines that show a plan to the people at a site."""
    by = f", coordinated by {plan.contact}" if plan.contact else ""
    lines = [f"the plan of run {plan.name}{by}:"]
    for head, text in (*_training(plan), *sent_items(plan), ("never sends", _NEVER)):
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=f"  {head:<{_HEAD - 2}}",
            subsequent_indent=" " * _HEAD,
            break_on_hyphens=False,
        )
    lines.append(f"  {'digest':<{_HEAD - 2}}{plan.digest}")
    return lines


def _training(plan: RunPlan) -> Iterator[tuple[str, str]]:
    yield "base model", _base(plan)
    for number, phase in enumerate(plan.phases, 1):
        yield "learns", f"phase {number}: {_phase(phase)}"
    if plan.labels:
        yield "classes", ", ".join(plan.labels)
    shape = "all parameters" if plan.lora is None else f"LoRA of rank {plan.lora.r}"
    if plan.lower_ranks:
        ranks = ", ".join(str(rank.lora.r) for rank in plan.lower_ranks)
        shape += f" (some clients: {ranks})"
    yield (
        "trains",
        f"{shape}: {plan.parameters:,} parameters in {plan.tensors} tensors; rows of up to"
        f" {plan.max_length} tokens",
    )
    adapter, once = format_bytes(plan.adapter_bytes), ""
    if plan.frozen_bytes:
        once = f" and {format_bytes(plan.frozen_bytes)} of frozen factors"
    yield (
        "fetches",
        f"the base model{once} once; {adapter} for each task; the last and the best version at the"
        " end",
    )


def sent_items(plan: RunPlan) -> Iterator[tuple[str, str]]:
    """Yield what leaves the machine of a site, by occasion, with the names of all fields."""
    yield (
        "sends",
        f"for each task, the change of the trained parameters: {format_bytes(plan.update_bytes)}"
        f" ({plan.update_codec}). It is computed from the rows, and is not anonymous by itself",
    )
    if plan.privacy is not None:
        yield "", _privacy(plan.privacy)
    statistics = [name for name in ContributionStats.model_fields if name != "seconds"]
    parts = ", ".join(TaskSeconds.model_fields)
    yield "", f"with it, statistics: {', '.join(statistics)}; seconds of {parts}"
    if plan.evaluation is not None:
        yield "", _evaluation(plan)
    if plan.contribution_source == "federated":
        yield (
            "",
            "if the site agrees (share_updates in worker.toml), its updates go to other sites,"
            " which evaluate them, and it evaluates theirs",
        )
    yield "", "on joining: the number of rows of each kind, this machine's name and its software"
    yield "", f"heartbeats: {_names(Heartbeat)}"


def _evaluation(plan: RunPlan) -> str:
    asked = plan.evaluation
    assert asked is not None  # checked by the caller
    every = f", and every {asked.every} versions" if asked.every else ""
    by_class = "; confusion: rows by true and by predicted class" if plan.labels else ""
    return (
        f"for evaluations (up to {asked.max_rows} validation rows of a client, at version 0, at"
        f" phase ends and at the end{every}), sums: {_names(EvaluationSums)}{by_class}"
    )


def _privacy(privacy: PlannedPrivacy) -> str:
    cap = f", at most {privacy.max_versions} times" if privacy.max_versions else ""
    return (
        f"this change is scaled down to a norm of {privacy.clip_norm:g}{cap}; the coordinator"
        " promises to show others only sums of changes, with Gaussian noise of"
        f" {privacy.noise_multiplier:g} times that norm ({privacy.delta:g} is the δ of its"
        f" differential privacy); {NOT_COVERED}"
    )


def _base(plan: RunPlan) -> str:
    held = ""
    if plan.precision is not None:
        held = f", held as {plan.precision.dtype}, quantization {plan.precision.quantization}"
    return f"{label(plan.base)} (sha256 {plan.base.digest[:16]}…){held}"


def _phase(phase: PlannedPhase) -> str:
    length = (
        f"{_steps(phase)} of {phase.batch_size} rows"
        if phase.local_steps
        else f"{phase.local_epochs} passes over the rows, {phase.batch_size} at a time"
    )
    return (
        f"{phase.objective}{_plugin(phase)} from {phase.kind} rows ({FIELDS[phase.kind]}),"
        f" {phase.versions} versions; a task has {length}, learning rate up to {phase.lr:g}"
    )


def _steps(phase: PlannedPhase) -> str:
    if phase.adaptive_steps is None:
        return f"{phase.local_steps} steps"
    least, most = phase.adaptive_steps
    return f"{least} to {most} steps by the speed of this machine, usually {phase.local_steps},"


def _plugin(phase: PlannedPhase) -> str:
    return "" if phase.plugin is None else f", trained by the plug-in {phase.plugin},"


def _names(kind: type[Record]) -> str:
    return ", ".join(kind.model_fields)


def format_bytes(count: int) -> str:
    """Return a size in decimal units, with two digits or more."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
