"""Explanation of directories that are not usable models, with a remedy for each kind.

Users name adapters, GGUF files, checkpoints of other libraries, and folders that contain a model.
`learning.models.families.check` raises the errors of this module.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from shlex import quote
from typing import Any

from common.errors import ModelError
from common.protocol.manifest import is_model_file

ADAPTER_CONFIG = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_FORMATS = {
    ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX", ".mlmodel": "Core ML",
    ".tflite": "TensorFlow Lite",
}  # fmt: skip
_SAVE = "save it again with save_pretrained"


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is missing or is not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def has_weights(path: Path) -> bool:
    """Return whether a directory has safetensors weights of a whole model."""
    return any(name.endswith(".safetensors") and is_model_file(name) for name in _file_names(path))


def _file_names(path: Path) -> list[str]:
    """Return the names in a directory, sorted; none if it cannot be listed."""
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return []


def refuse_adapter(path: Path, name: str) -> None:
    """Raise `ModelError` if a directory holds a PEFT adapter, with or without a model beside it."""
    if not (path / ADAPTER_CONFIG).exists():
        return
    if (path / "config.json").exists() and has_weights(path):
        # transformers would load the adapter, and its base instead of this model.
        raise ModelError(
            f"{name} holds a PEFT adapter beside a model: {path / ADAPTER_CONFIG}",
            "move the adapter into a directory of its own, and name that in model.adapter",
        )
    base = (read_json(path / ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    known = isinstance(base, str) and base.isprintable() and 0 < len(base) <= 200
    raise ModelError(
        f"{name} is a PEFT adapter, not a whole model" + (f"; its base is {base}" if known else ""),
        "set model.name to its base and model.adapter to this directory, or merge it into its base"
        " first and name the merged model",
    )


def no_configuration(path: Path, name: str) -> ModelError:
    """Return the error for a directory without a readable `config.json`."""
    what = f"{name} is not a model directory: {path} has no readable config.json"
    if (path / "run.db").exists():
        remedy = (
            f"it is a run: export a version with `fccl export {quote(name)} OUT --merge`, name OUT"
        )
    elif (path / "model_index.json").exists():
        remedy = "it holds a pipeline of image models; fccl trains language models"
    elif (path / "params.json").exists():
        remedy = "it has the model's original format: convert it with transformers' own script"
    else:
        remedy = (
            _nested(path) or _other_format(path) or "give a directory written by save_pretrained"
        )
    return ModelError(what, remedy)


def no_weights(path: Path, name: str) -> ModelError:
    """Return the error for a directory without safetensors weights under the usual names."""
    remedy = _nested(path) or _other_format(path) or "give a directory written by save_pretrained"
    if named := [name for name in _file_names(path) if name.endswith(".safetensors")]:
        remedy = f"{named[0]} has another name than save_pretrained gives: {_SAVE}"
    return ModelError(f"model {name} has no safetensors weights in {path}", remedy)


def not_a_directory(name: str, path: Path) -> ModelError:
    """Return the error for a name that is a file."""
    remedy = "name the directory that holds it"
    if path.suffix == ".gguf":
        remedy = "fccl trains safetensors: use the model from which this GGUF file was made"
    return ModelError(f"model {name} is a file, not a model directory", remedy)


def _nested(path: Path) -> str | None:
    """Return a remedy if the model is one or two folders deeper, as in a cache of the hub."""
    for pattern in ("*/config.json", "*/*/config.json"):
        for config in sorted(path.glob(pattern)):
            if has_weights(config.parent):
                return f"set model.name to the model in it: {config.parent}"
    for config in sorted(path.glob(f"*/{ADAPTER_CONFIG}")):
        return f"{config.parent} is a PEFT adapter: set model.adapter to it, model.name to its base"
    return None


def _other_format(path: Path) -> str | None:
    """Return a remedy for weights in an unsupported format; None if there are none."""
    suffixes = {Path(name).suffix.lower() for name in _file_names(path)}
    if ".gguf" in suffixes:
        return "GGUF weights cannot be trained: use the safetensors model that they were made from"
    if suffixes & set(_PICKLED):
        return f"pickled weights are never loaded: {_SAVE}"
    for suffix, format_name in _OTHER_FORMATS.items():
        if suffix in suffixes:
            return f"weights of {format_name} are not read: {_SAVE} of its PyTorch class"
    return None
