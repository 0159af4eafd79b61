"""Families of models, determined from a directory's `config.json` alone.

A causal model continues text (sft, dpo); an encoder reads a whole text and gets a head
(classification). The architecture's name decides, before anything is loaded.

In the data path: `learning.models.base` checks every directory here before it takes a digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from common.errors import ModelError
from learning.models import directory
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
        ModelError: No readable `config.json`, no safetensors weights, weights that cannot be
            trained, or the wrong family.
    """
    directory.refuse_adapter(path, name)
    config = directory.read_json(path / "config.json")
    if config is None:
        raise directory.no_configuration(path, name)
    if not directory.has_weights(path):
        raise directory.no_weights(path, name)
    _check_form(config, name)
    actual = family(config)
    if actual is None or (required is not None and actual != required):
        architecture = (config.get("architectures") or ["none"])[0]
        kind, remedy = _REQUIREMENTS[required or "causal"]
        if "vision_config" in config:
            remedy = "it reads images, too: use a text-only model of its family"
        raise ModelError(f"model {name} is not {kind} (architecture {architecture})", remedy)


def _check_form(config: dict[str, Any], name: str) -> None:
    """Refuse weights or settings with which training would fail, or would not mean anything."""
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"model {name} is quantized ({method or 'unknown method'}), which cannot be trained",
            "use the unquantized model that it was made from",
        )
    encoder = config.get("model_type") in _ENCODER_TYPES and family(config) == "causal"
    if encoder and config.get("is_decoder") is not True:
        raise ModelError(
            f"model {name} reads ahead: its config.json lacks is_decoder = true, so that each token"
            " would be predicted from the tokens after it",
            f"use a model that continues text, such as {offline.DEFAULT_CAUSAL}",
        )
