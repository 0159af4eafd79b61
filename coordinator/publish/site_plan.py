"""The run's plan as its sites see it; `coordinator/publish/store_publisher.py` publishes it."""

from __future__ import annotations

import hashlib
import math

from common.config.config import PrivacyConfig
from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.run_plan import (
    PlannedEvaluation,
    PlannedPhase,
    PlannedPrivacy,
    PlannedRank,
    RunPlan,
)
from coordinator.storage.run import Run


def site_plan(run: Run, version: int) -> RunPlan:
    """Return the plan of a run; the sizes are those of the tensors of a version.

    Raises:
        RunError: The version is missing or damaged.
    """
    config, template = run.config, run.template
    layout = run.forms.common.layout(TensorLayout.of(run.versions.read(version)))
    evaluation = None
    if config.evaluates_at_sites:
        evaluation = PlannedEvaluation(
            max_rows=config.evaluation.max_rows, every=config.evaluation.every
        )
    prompt = template.prompt
    return RunPlan(
        run=run.run_id,
        name=run.name,
        contact=config.run.contact,
        base=template.base,
        precision=template.precision,
        phases=tuple(
            PlannedPhase(
                objective=phase.objective,
                versions=phase.versions,
                local_steps=phase.local_steps,
                local_epochs=phase.local_epochs,
                batch_size=phase.batch_size,
                lr=phase.lr,
                plugin=template.plugin(phase),
                adaptive_steps=config.schedule.adaptive_steps,
            )
            for phase in run.plan.phases
        ),
        labels=template.labels,
        prompt=None if prompt is None else hashlib.sha256(prompt.template.encode()).hexdigest(),
        max_length=template.max_length,
        lora=template.lora,
        layout=template.layout,
        parameters=sum(math.prod(shape) for _, shape in layout.tensors),
        tensors=len(layout.tensors),
        update_codec=template.update_codec,
        update_bytes=codec.payload_bytes(template.update_codec, layout),
        adapter_bytes=codec.payload_bytes(config.codec.adapter, layout),
        contribution_source=config.aggregation.contribution_source,
        evaluation=evaluation,
        frozen_bytes=template.frozen.nbytes if template.frozen else 0,
        lower_ranks=tuple(
            PlannedRank(lora=each.lora, layout=each.layout)
            for each in sorted(set(template.clients.values()), key=lambda each: each.rank)
        ),
        privacy=_privacy(config.privacy),
    )


def _privacy(settings: PrivacyConfig) -> PlannedPrivacy | None:
    if settings.clip_norm is None:
        return None
    return PlannedPrivacy(
        clip_norm=settings.clip_norm,
        noise_multiplier=settings.noise_multiplier,
        delta=settings.delta,
        max_versions=settings.max_versions,
    )
