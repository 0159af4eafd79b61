"""Plans of runs, as coordinators publish them."""

from __future__ import annotations

from typing import Any

from common.protocol.run_plan import PlannedEvaluation, PlannedPhase, RunPlan
from common.protocol.tasks import BaseRef, LoraSpec

BASE = BaseRef(name="offline:smollm2-135m", kind="offline", digest="ab" * 32)


def run_plan(**fields: Any) -> RunPlan:
    """Return a plan of one phase; `fields` replace its own."""
    phase = PlannedPhase(
        objective="sft", versions=8, local_steps=5, local_epochs=0, batch_size=16, lr=6e-3
    )
    return RunPlan(
        **{
            "run": "triage-1",
            "name": "triage",
            "contact": "Jane Doe, jane@example.org",
            "base": BASE,
            "phases": (phase,),
            "max_length": 256,
            "lora": LoraSpec(),
            "layout": "cd" * 32,
            "parameters": 2_400_000,
            "tensors": 120,
            "update_codec": "int8",
            "update_bytes": 2_550_000,
            "adapter_bytes": 9_600_000,
            "contribution_source": "train",
            "evaluation": PlannedEvaluation(max_rows=200),
            **fields,
        }
    )
