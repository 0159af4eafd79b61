"""Tests of the check whether training fits into memory."""

from __future__ import annotations

from typing import Any

from cli.doctor.memory import judge
from common.config.loader import parse
from learning.models.memory_estimate import PROCESS, shape_of

GB = 1 << 30
LAYERS = {f"layers.{i}.q.weight": (1024, 1024) for i in range(24)}
MODEL = shape_of({"embed.weight": (50_000, 1024), **LAYERS})


def config(**phase: Any) -> Any:
    return parse({"model": {"max_length": 512}, "phase": [{"batch_size": 16, **phase}]}, "here")


def test_a_model_that_fits_is_fine_and_one_that_does_not_is_a_warning_with_a_remedy() -> None:
    good = judge(config(), MODEL, 64 * GB, autocast=False)
    assert good.status == "ok" and "64" in good.text and not good.remedy
    tight = judge(config(), MODEL, 6 * GB, autocast=False)
    assert (tight.status, tight.remedy) == ("warn", "set micro_batch = 8 on this worker")
    least = judge(config(), MODEL, PROCESS + 850 * 2**20, autocast=False)
    assert least.status == "warn" and "checkpointing" in least.text
    none = judge(config(), MODEL, GB, autocast=False)
    assert none.status == "warn" and "model.quantization" in none.remedy
    assert judge(config(), MODEL, None, autocast=False).status == "ok"


def test_preference_pairs_take_twice_the_rows() -> None:
    sft = judge(config(), MODEL, None, autocast=False).text
    assert judge(config(objective="dpo"), MODEL, None, autocast=False).text != sft
