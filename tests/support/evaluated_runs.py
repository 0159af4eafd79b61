"""Small runs with several versions, over a tiny model or encoder, for tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import torch

from common.config.loader import parse
from common.protocol.tasks import ModelPrecision
from common.protocol.tensors import Tensors
from common.protocol.versions import VersionSummary
from common.run_directory.recorded_run import read_run
from coordinator.storage import run as runs
from evaluation.evaluator import EvaluationLimits, Evaluator
from learning.data import rows as rows_of
from learning.data.row_types import Instruction, LabelledText, PreferencePair
from learning.training.device import Compute
from preparation.run import create_prepared_run
from tests.support.tiny_encoder import encoder, saved
from tests.support.tiny_model import tiny_model, tiny_tokenizer

CPU = Compute(torch.device("cpu"), 1, autocast=False)
LIMITS = {"sft": 4, "va": 4, "cls": 4}
FEW = EvaluationLimits(heldout=LIMITS, client=LIMITS, samples=2, new_tokens=3)


def evaluator_of(
    directory: Path, compute: Compute = CPU, precision: ModelPrecision | None = None
) -> Evaluator:
    """Return the evaluator of a run made here."""
    run = read_run(directory)
    return Evaluator(run, Path(run.base.name), compute, precision)


def make_run(directory: Path, table: dict[str, object], name: str = "r") -> Path:
    """Make a run with versions 0 to 3, of which retention has removed version 2."""
    config = parse({"run": {"name": name, "dir": str(directory)}, **table}, "test")
    create_prepared_run(config, directory / "cache", lambda *_: None, lambda _: None)
    run = runs.open_run(config, lambda base: Path(base.name))
    start = run.versions.read(0)
    for version in range(1, 4):
        ref = run.versions.stage(version, _shifted(start, 0.01 * version))
        run.journal.put_version(
            VersionSummary(version=version, phase=0, at=0.0, sha256=ref.sha256, nbytes=ref.nbytes)
        )
        run.versions.place(version, ref.sha256)
    run.versions.retain({0, 1, 3})
    run.journal.close()
    return run.directory


def _shifted(tensors: Tensors, by: float) -> Tensors:
    return {name: (tensor + by).astype(tensor.dtype) for name, tensor in tensors.items()}


def write_sources(place: Path) -> Path:
    """Write a causal model, an encoder and files of rows."""
    tiny_model().save_pretrained(place / "causal")
    tiny_tokenizer().save_pretrained(place / "causal")
    saved(encoder(), place / "encoder")
    rows_of.write(
        place / "sft.jsonl", [Instruction(f"Say {i}.", "", f"Number {i}.") for i in range(60)]
    )
    rows_of.write(
        place / "va.jsonl",
        [PreferencePair(f"Is {i} odd?", f"It is {i}.", "No idea.") for i in range(60)],
    )
    words = [("good", "it was a good film"), ("bad", "dull and slow plot")]
    rows_of.write(
        place / "cls.jsonl",
        [
            LabelledText(f"{text}{' very' * (i % 30)}", label)
            for i in range(30)
            for label, text in words
        ],
    )
    return place


def causal_config(place: Path) -> dict[str, object]:
    """Return a configuration of sft and then dpo."""
    return {
        "model": {"name": str(place / "causal"), "max_length": 128, "lora": {"r": 2}},
        "data": {"sft": str(place / "sft.jsonl"), "va": str(place / "va.jsonl"), "clients": 2},
        "phase": [
            {"versions": 1},
            {"objective": "dpo", "versions": 2, "beta": 0.5},
        ],
    }


def classifier_config(place: Path, **model: object) -> dict[str, object]:
    """Return a configuration of classification."""
    return {
        "model": {"name": str(place / "encoder"), "max_length": 32, **model},
        "data": {"cls": str(place / "cls.jsonl"), "clients": 2, "partition": "length"},
        "phase": [{"objective": "classification", "versions": 3}],
    }
