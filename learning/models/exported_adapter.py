"""Exported adapters: their origin, and the start of a new run from one.

`learning.models.export` writes an adapter's origin into the metadata of its safetensors file, which
PEFT ignores. `preparation/run.py` reads the directory that `model.adapter` names as version 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from common.errors import ConfigError, ModelError
from common.protocol.tasks import LoraSpec, PromptSpec
from common.protocol.tensors import Tensors
from common.run_directory.records import AdapterOrigin, WarmStart
from learning.models.directory import ADAPTER_CONFIG, has_weights, read_json

WEIGHTS = "adapter_model.safetensors"
_ORIGIN = "fccl"  # key of the metadata
_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_UNLIKE = {
    "use_dora": False, "use_rslora": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {},
    "target_parameters": None, "layer_replication": None, "trainable_token_indices": None,
}  # fmt: skip
"""Settings of PEFT with their only supported values, which are also the defaults."""


@dataclass(frozen=True)
class ExportedAdapter:
    """An adapter in memory, with its configuration and its origin."""

    path: Path
    tensors: Tensors  # float32
    config: Mapping[str, Any]  # `adapter_config.json`
    origin: AdapterOrigin | None  # None if the file does not name it
    sha256: str  # of the safetensors file

    @property
    def start(self) -> WarmStart:
        """The record of a run that begins with this adapter."""
        run, version = (self.origin.run, self.origin.version) if self.origin else (None, None)
        return WarmStart(sha256=self.sha256, run=run, version=version)


def origin_metadata(origin: AdapterOrigin) -> dict[str, str]:
    """Return the metadata of a safetensors file of an adapter."""
    return {"format": "pt", _ORIGIN: origin.model_dump_json()}


def read_exported(path: Path) -> ExportedAdapter:
    """Read the adapter in a directory, in float32; pickled weights are never read.

    Raises:
        ModelError: The directory holds no adapter, a damaged one, or one of another kind.
    """
    config = read_json(path / ADAPTER_CONFIG)
    if config is None:
        raise _no_adapter(path)
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"model.adapter {path} is an adapter of type {str(config.get('peft_type'))[:40]}",
            "use an adapter of LoRA factors",
        )
    for key, usual in _UNLIKE.items():
        if (config.get(key) or usual) != usual:
            raise ModelError(
                f"the adapter in {path} was trained with {key}, which fccl does not train",
                "merge it into its base and set model.name to the result",
            )
    file = path / WEIGHTS
    try:
        tensors, metadata = _read_tensors(file)
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(
            f"{file} cannot be read: {reason}",
            "an adapter needs adapter_model.safetensors; pickled weights are never loaded",
        ) from None
    return ExportedAdapter(path, tensors, config, _origin(metadata), sha256)


def prompt_digest(prompt: PromptSpec | None) -> str | None:
    """Return the digest of a run's chat template; None for a run without one."""
    return None if prompt is None else hashlib.sha256(prompt.template.encode()).hexdigest()


def check_settings(adapter: ExportedAdapter, spec: LoraSpec) -> None:
    """Raise `ConfigError` if rank or alpha are not those of an adapter."""
    for key, name, value in (("r", "r", spec.r), ("lora_alpha", "alpha", spec.alpha)):
        if adapter.config.get(key) != value:
            raise ConfigError(
                f"model.lora.{name} is {value}, but the adapter in {adapter.path} has"
                f" {adapter.config.get(key)}",
                f"set model.lora.{name} = {adapter.config.get(key)}",
            )


def check_base(adapter: ExportedAdapter, digest: str, labels: tuple[str, ...]) -> None:
    """Check base model and class names, if the adapter names its origin.

    Raises:
        ModelError: The adapter was trained on another base model.
        ConfigError: Its head has other classes, or another order of the classes.
    """
    origin = adapter.origin
    if origin is None:
        return
    if digest not in origin.bases:
        raise ModelError(
            f"the adapter in {adapter.path} was trained on the base model {origin.bases[0][:12]},"
            f" but model.name has the digest {digest[:12]}",
            "set model.name to the base of the adapter",
        )
    if origin.labels != labels:
        raise ConfigError(
            f"the adapter in {adapter.path} has the classes {list(origin.labels)}, but the rows"
            f" have {list(labels)}",
            f"set data.labels = {json.dumps(list(origin.labels), ensure_ascii=False)}",
        )


def check_names(adapter: ExportedAdapter, own: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the adapter has tensors of other layers than the run's adapter."""
    if unlike := sorted(own.keys() ^ adapter.tensors.keys()):
        state = "lacks" if unlike[0] in own else "has"
        adapted = (name.partition(".lora_")[0] for name in adapter.tensors if ".lora_" in name)
        fitting = sorted({name.rpartition(".")[2] for name in adapted})
        raise ConfigError(
            f"the adapter in {adapter.path} {state} {unlike[0]}, unlike model.lora.targets"
            f" ({len(unlike)} tensors differ)",
            f"set model.lora.targets = {json.dumps(fitting)}, and model.name to its base",
        )


def _no_adapter(path: Path) -> ModelError:
    what = f"model.adapter {path} is not a PEFT adapter: it has no readable {ADAPTER_CONFIG}"
    remedy = "give a directory that `fccl export` wrote without --merge"
    if (path / "run.db").exists():
        remedy = f"export a version of that run: fccl export {quote(str(path))} OUT, and name OUT"
    elif path.is_dir() and has_weights(path):
        remedy = "it is a whole model: set model.name to it, without model.adapter"
    return ModelError(what, remedy)


def _read_tensors(file: Path) -> tuple[Tensors, Mapping[str, str]]:
    tensors: Tensors = {}
    with safe_open(file, "pt") as content:
        metadata = content.metadata() or {}
        for name in sorted(content.keys()):
            tensor = content.get_tensor(name)
            if tensor.dtype not in _PRECISIONS or not torch.isfinite(tensor).all():
                raise ModelError(
                    f"{file}: {name} has values that are no finite float32, float16 or bfloat16",
                    "export the adapter again",
                )
            tensors[name] = tensor.to(torch.float32).numpy()
    return tensors, metadata


def _origin(metadata: Mapping[str, str]) -> AdapterOrigin | None:
    try:
        return AdapterOrigin.model_validate_json(metadata.get(_ORIGIN, ""))
    except ValidationError:
        return None
