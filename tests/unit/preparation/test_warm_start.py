"""A run begins with an exported adapter of the same base, or is refused with what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from common.config import loader
from common.errors import ConfigError, FcclError, ModelError
from common.run_directory.recorded_run import RecordedRun, read_run
from evaluation.export.export import ExportOptions, export_version
from learning.models import base
from learning.models.base import BaseModel
from preparation.run import create_prepared_run
from tests.support.families import saved_family
from tests.support.tiny_encoder import encoder, saved

OPTIONS = ExportOptions(version=0, merge=False, precision=None, with_base=None)
WEIGHTS = "adapter_model.safetensors"
CLASSES = {"objective": "classification"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    path = saved_family("smollm2", tmp_path_factory.mktemp("model"))
    return base.resolve(str(path), None, path, lambda *_: None)


def begin(
    folder: Path,
    name: str,
    model: Path | str,
    *phases: dict[str, Any],
    lines: list[str] | None = None,
    **keys: Any,
) -> RecordedRun:
    """Return a run that was only prepared."""
    lines = [] if lines is None else lines
    lora = {"r": 4, "alpha": 8, **keys.pop("lora", {})}
    table = {
        "run": {"name": name, "dir": str(folder), "seed": keys.pop("seed", 0)},
        "model": {"name": str(model), "lora": lora, **keys},
        "data": {"rows": 40, "clients": 2},
        "phase": list(phases) or [{}],
    }
    if phases and phases[0].get("objective") == "classification":
        table["model"]["max_length"] = 32
    create_prepared_run(loader.parse(table, "test"), folder, lambda *_: None, lines.append)
    if keys.get("adapter"):
        assert any(line.startswith("version 0 is the adapter in") for line in lines)
    return read_run(folder / name)


def exported(run: RecordedRun, base_path: Path, out: Path) -> Path:
    export_version(run, base_path, OPTIONS, out)
    return out


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, model: BaseModel) -> Path:
    folder = tmp_path_factory.mktemp("first")
    return exported(begin(folder, "first", model.path, seed=5), model.path, folder / "adapter")


def altered(adapter: Path, out: Path, **fields: Any) -> Path:
    """Return a copy of an adapter with other fields in its configuration."""
    out.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text()) | fields
    (out / "adapter_config.json").write_text(json.dumps(config))
    (out / WEIGHTS).write_bytes((adapter / WEIGHTS).read_bytes())
    return out


def test_version_0_is_the_exported_adapter_and_the_run_says_where_it_came_from(
    tmp_path: Path, model: BaseModel, adapter: Path
) -> None:
    run = begin(tmp_path, "second", model.path, adapter=str(adapter), seed=1)
    ours, theirs = run.tensors(0), load_file(adapter / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    first = read_run(adapter.parent / "first")
    assert run.start is not None
    assert (run.start.run, run.start.version) == (first.run_id, 0)
    assert run.start.describe() == f"version 0 of run {first.run_id}"
    assert first.start is None


@pytest.mark.parametrize(("prompt", "told"), [("auto", False), ("alpaca", True)])
def test_another_prompt_form_than_the_adapters_is_told(
    tmp_path: Path, model: BaseModel, adapter: Path, prompt: str, told: bool
) -> None:
    lines: list[str] = []
    begin(tmp_path, "second", model.path, lines=lines, adapter=str(adapter), prompt=prompt)
    assert any("another prompt form" in line for line in lines) == told


def test_the_base_beside_an_export_is_the_same_model(tmp_path: Path, adapter: Path) -> None:
    assert begin(tmp_path, "second", adapter / "base", adapter=str(adapter)).start is not None


def test_a_version_of_a_run_directory_is_an_adapter_with_a_known_base(
    tmp_path: Path, model: BaseModel
) -> None:
    first = begin(tmp_path, "first", model.path)
    directory = first.version_directory(0)
    second = begin(tmp_path, "second", model.path, adapter=str(directory))
    assert second.start is not None and second.start.run == first.run_id
    other = saved_family("smollm2", tmp_path / "other", seed=3)
    with pytest.raises(ModelError, match="was trained on the base model"):
        begin(tmp_path, "third", other, adapter=str(directory))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_in_half_precision_are_read(
    tmp_path: Path, model: BaseModel, adapter: Path, dtype: torch.dtype
) -> None:
    half = altered(adapter, tmp_path / "half")
    tensors = {n: torch.from_numpy(t).to(dtype) for n, t in load_file(adapter / WEIGHTS).items()}
    save_torch(tensors, half / WEIGHTS, metadata={"format": "pt"})
    run = begin(tmp_path, "second", model.path, adapter=str(half))
    assert all(np.array_equal(run.tensors(0)[n], t.float().numpy()) for n, t in tensors.items())
    assert run.start is not None and run.start.run is None  # saved by others: no origin


Change = Callable[[Path, Path], Path]


def _not_finite(adapter: Path, out: Path) -> Path:
    tensors = load_file(altered(adapter, out) / WEIGHTS)
    tensors[next(iter(tensors))][0, 0] = np.nan
    save_file(tensors, out / WEIGHTS)
    return out


def _cut_off(adapter: Path, out: Path) -> Path:
    file = altered(adapter, out) / WEIGHTS
    file.write_bytes(file.read_bytes()[:-9])
    return out


def _pickled(adapter: Path, out: Path) -> Path:
    file = altered(adapter, out) / WEIGHTS
    file.rename(out / "adapter_model.bin")
    return out


def _run_directory(adapter: Path, out: Path) -> Path:
    return adapter.parent / "first"


def _whole_model(adapter: Path, out: Path) -> Path:
    return adapter / "base"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_not_finite, "no finite"),
        (_cut_off, "cannot be read"),
        (_pickled, "pickled weights are never loaded"),
        (_run_directory, "fccl export"),
        (_whole_model, "is a whole model"),
        (lambda adapter, out: out, "is not a PEFT adapter"),
        (lambda adapter, out: altered(adapter, out, peft_type="IA3"), "of type IA3"),
        (lambda adapter, out: altered(adapter, out, use_dora=True), "use_dora"),
        (lambda adapter, out: altered(adapter, out, use_rslora=True), "use_rslora"),
        (lambda adapter, out: altered(adapter, out, rank_pattern={"q_proj": 2}), "rank_pattern"),
        (lambda adapter, out: altered(adapter, out, r=8), "set model.lora.r = 8"),
        (lambda adapter, out: altered(adapter, out, lora_alpha=99), "set model.lora.alpha = 99"),
    ],
)
def test_what_is_no_fitting_adapter_is_refused_before_rows_are_read(
    tmp_path: Path, adapter: Path, change: Change, says: str
) -> None:
    path = change(adapter, tmp_path / "changed")
    with pytest.raises(FcclError) as caught:
        begin(tmp_path, "second", "no model is looked for", adapter=str(path))
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "second").exists()


def test_an_adapter_of_other_layers_is_refused_with_its_own(
    tmp_path: Path, model: BaseModel, adapter: Path
) -> None:
    with pytest.raises(ConfigError, match=r"unlike model\.lora\.targets") as caught:
        begin(tmp_path, "second", model.path, adapter=str(adapter), lora={"targets": ["q_proj"]})
    assert '"down_proj"' in caught.value.remedy


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, adapter: Path) -> None:
    other = saved_family("smollm2", tmp_path / "other", seed=3)
    with pytest.raises(ModelError, match=r"was trained on the base model .* has the digest"):
        begin(tmp_path, "second", other, adapter=str(adapter))


def test_a_classifier_begins_with_the_exported_head_and_its_order_of_classes(
    tmp_path: Path,
) -> None:
    model = saved(encoder(), tmp_path / "model")
    first = begin(tmp_path, "first", model, CLASSES, seed=5)
    adapter = exported(first, model, tmp_path / "adapter")
    head = "base_model.model.classifier.weight"
    for name, path in (("second", model), ("third", adapter / "base")):
        run = begin(tmp_path, name, path, CLASSES, adapter=str(adapter))
        theirs = load_file(adapter / WEIGHTS)
        assert head in theirs
        assert all(np.array_equal(run.tensors(0)[name], theirs[name]) for name in theirs)
    table = {
        "run": {"name": "fourth", "dir": str(tmp_path)},
        "model": {
            "name": str(model), "max_length": 32, "adapter": str(adapter),
            "lora": {"r": 4, "alpha": 8},
        },
        "data": {"rows": 40, "clients": 2, "labels": list(reversed(first.labels))},
        "phase": [CLASSES],
    }  # fmt: skip
    with pytest.raises(ConfigError, match="has the classes") as caught:
        create_prepared_run(loader.parse(table, "t"), tmp_path, lambda *_: None, lambda _: None)
    assert json.dumps(list(first.labels)) in caught.value.remedy
