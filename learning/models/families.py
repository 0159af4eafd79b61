"""Families of models, determined from a directory's `config.json` alone.

A causal model continues text (sft, dpo); an encoder reads a whole text and gets a head
(classification). The architecture's name decides, before anything is loaded.

In the data path: `learning.models.base` checks every directory here before it takes a digest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from common.errors import ModelError
from learning.offline import builder as offline

Family = Literal["causal", "encoder"]

_CAUSAL = ("CausalLM", "LMHeadModel")
_ENCODER = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification")
_ENCODER_TYPES = frozenset({
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
    "mobilebert", "modernbert", "mpnet", "roberta", "roformer", "xlm-roberta",
})  # fmt: skip
_REQUIREMENTS = {
    "causal": (
        "a causal language model",
        f"sft and dpo need one, such as gpt2 or {offline.DEFAULT_CAUSAL}",
    ),
    "encoder": (
        "an encoder",
        "classification needs one, such as bert-base-uncased or offline:bert-tiny",
    ),
}


def family(config: dict[str, Any]) -> Family | None:
    """Return the family of a model's configuration; None if it belongs to neither."""
    known = config.get("architectures")
    names = [str(each) for each in known] if isinstance(known, list) else []
    if any(name.endswith(_CAUSAL) for name in names):
        return "causal"
    encoder = config.get("model_type") in _ENCODER_TYPES
    if encoder and any(name.endswith((*_ENCODER, "Model")) for name in names):
        return "encoder"
    return None


def check(path: Path, name: str, required: Family | None) -> None:
    """Check that the model in a directory can be used; `name` is the user's name of it.

    Raises:
        ModelError: No readable `config.json`, no safetensors weights, or the wrong family.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(
            f"{name} is not a model directory: {path} has no readable config.json",
            "give a directory written by save_pretrained",
        )
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"model {name} has no safetensors weights in {path}",
            "pickled weights are never loaded: save it again with save_pretrained",
        )
    actual = family(config)
    if actual is None or (required is not None and actual != required):
        architecture = (config.get("architectures") or ["none"])[0]
        kind, remedy = _REQUIREMENTS[required or "causal"]
        raise ModelError(f"model {name} is not {kind} (architecture {architecture})", remedy)
