"""Run directories as a coordinator leaves them, and exports of their versions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.config.loader import parse
from common.protocol.fields import ObjectiveName, RowKind
from common.protocol.tasks import BaseRef, LoraSpec, PromptSpec
from common.protocol.updates import ContributionStats
from common.protocol.versions import UpdateSummary, VersionSummary
from common.run_directory.recorded_run import read_run
from coordinator.storage import run as runs
from coordinator.storage.journal import Journal
from coordinator.storage.versions import Versions
from evaluation.export.export import ExportOptions, export_version
from learning.models import base, lora, objective_model
from learning.models.export import Precision

CPU = torch.device("cpu")
LORA = LoraSpec(r=2, alpha=8, dropout=0.1)
SECRET = "alice-of-the-clinic"  # a client, who must not be named


def quietly(message: str, fraction: float) -> None: ...


@dataclass(frozen=True)
class Made:
    """A run directory whose version 2 was trained, its base, and the model as it was trained."""

    directory: Path
    base: Path
    model: torch.nn.Module

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        return logits(self.model, ids)


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model.eval()(input_ids=ids).logits
        return out


def made(
    place: Path,
    path: Path,
    objective: ObjectiveName,
    settings: LoraSpec | None = LORA,
    labels: Sequence[str] = (),
    kind: Any = "local",
    prompt: PromptSpec | None = None,
    phases: Sequence[dict[str, Any]] = (),
    **data: Any,
) -> Made:
    """Make a run over a base, as its coordinator would have left it after two versions."""
    loaded = objective_model.load_for_objective(objective, path, labels, CPU)
    adapted = lora.attach(loaded.model, settings, 0)
    first = lora.read_adapter(adapted)
    rng = np.random.default_rng(5)
    trained = {
        name: (tensor + 0.2 * rng.normal(size=tensor.shape)).astype(np.float32)
        for name, tensor in first.items()
    }
    lora.write_adapter(adapted, trained)
    digest = base.resolve(str(path), None, place / "cache", quietly).digest
    name, revision = ("owner/tiny", "abc123") if kind == "hub" else (str(path), None)
    row: RowKind = "cls" if objective == "classification" else "sft"
    config = parse(
        {
            "run": {"name": "small", "dir": str(place)},
            "model": {"name": name, "lora": settings.fields() if settings else False},
            "phase": list(phases) or [{"objective": objective, "versions": 3}],
            "data": {row: "owner/rows", **data},
        },
        "test",
    )
    origin = runs.PreparedRun(
        base=BaseRef(name=name, revision=revision, kind=kind, digest=digest),
        base_path=path,
        rows={SECRET: {row: 30}, "b": {row: 12}},
        labels=tuple(labels),
        prompt=prompt,
        sources={},
        adapter=first,
        adapter_config=lora.adapter_config(adapted, str(path), revision),
    )
    runs.create_run(config, lambda directory: origin, 1.0)
    directory = config.run.path
    if kind == "hub":  # as if it had been downloaded before
        (place / "cache" / "models").mkdir(parents=True)
        (place / "cache" / "models" / digest).symlink_to(path)
    versions = Versions(directory / "versions", origin.adapter_config, config.codec.adapter)
    journal = Journal.open(directory / "run.db")
    for number, tensors in ((1, first), (2, trained)):
        ref = versions.stage(number, tensors)
        journal.put_version(summary(number, ref.sha256, ref.nbytes))
        versions.place(number, ref.sha256)
    journal.close()
    return Made(directory, path, adapted)


def summary(version: int, sha256: str, nbytes: int) -> VersionSummary:
    update = UpdateSummary(
        task_id=f"t{version}", client_id=SECRET, worker_id="w", base_version=version - 1,
        staleness=0, score=1.0, weight=1.0, staleness_factor=1.0, participation_factor=1.0,
        clip=1.0, coefficient=1.0, nbytes=10,
        stats=ContributionStats(
            num_samples=30, num_tokens=100, steps=2, avg_loss=4.0, loss_before=5.0,
            loss_after=3.0, delta_norm=1.0, train_seconds=1.0,
        ),
    )  # fmt: skip
    return VersionSummary(
        version=version, phase=0, at=2.0, sha256=sha256, nbytes=nbytes, updates=(update,),
        train_loss=4.5 - version, holdout_before=6.0 - version, holdout_after=5.0 - version,
    )  # fmt: skip


def export(
    of: Made,
    out: Path,
    *,
    merge: bool = False,
    version: int = 2,
    precision: Precision | None = None,
    with_base: bool | None = None,
) -> Path:
    run = read_run(of.directory)
    options = ExportOptions(version, merge, precision, with_base)
    export_version(run, of.base, options, out)
    return out


def snippet_of(out: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    return str(code)


def run_snippet(out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the card's snippet in the export's directory; return the variables that it leaves."""
    monkeypatch.chdir(out)
    left: dict[str, Any] = {}
    exec(snippet_of(out), left)
    return left
