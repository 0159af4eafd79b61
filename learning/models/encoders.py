"""Loading of an encoder of the BERT family, with a head for given labels or with its own.

As in `learning.models.loader`: only safetensors, only local files, never code that comes with a
model. A directory with a `pruning.json` is rebuilt with its shapes. Weights that the checkpoint
lacks may only be those of a head or a pooler, and come from a seed, so that every side starts with
the same ones.

In the data path: the worker's trainer and the evaluation load their classifier here, and
`learning.pruning.prune` the encoder to be pruned. Next: `learning.models.lora`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.errors import ModelError
from learning.models import held_weights
from learning.models.loader import LoadedModel, quiet
from learning.models.precision import FLOAT32, WeightFormat
from learning.models.tokenizer_fit import check_fit, embedding_rows
from learning.pruning.record import Pruning, check_shapes, read_pruning, reshape

_REMEDY = "it needs config.json, safetensors weights and a tokenizer of an encoder such as BERT"
_MAX_LAYERS = 1024  # each takes time to build, before its weights turn out to be missing
_PADS = ("[PAD]", "<pad>")


def load_encoder(
    path: Path,
    labels: Sequence[str],
    device: torch.device,
    seed: int,
    weights: WeightFormat = FLOAT32,
) -> LoadedModel:
    """Load an encoder with a classification head for these labels.

    A head in the checkpoint is kept if it has as many labels; otherwise a new one is made.

    Args:
        labels: Names of the classes, in the order of the head's outputs.
        seed: Seed of the weights of a new head or pooler, which are drawn on the CPU.

    Raises:
        ModelError: The files are not an encoder with a tokenizer, or their head has these labels in
            another order.
    """
    _check_order(path, labels)
    fields = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }
    return _load(path, AutoModelForSequenceClassification, fields, device, seed, weights)


def load_whole(path: Path, device: torch.device) -> LoadedModel:
    """Load an encoder with the head of its checkpoint: a classifier's, a masked LM's, or none.

    A masked LM has no place for a pooler. Where the checkpoint has one, as BERT's have, the pooler
    is worth more than the masked LM's head, because a classifier reads through it.

    Raises:
        ModelError: The files are not an encoder with a tokenizer.
    """
    name = str((_config(path, {}).architectures or ["none"])[0])
    if name.endswith("ForSequenceClassification"):
        return _load(path, AutoModelForSequenceClassification, {}, device, seed=0)
    masked = "MaskedLM" in name and not _has_pooler(path)
    return _load(path, AutoModelForMaskedLM if masked else AutoModel, {}, device, 0)


def _has_pooler(path: Path) -> bool:
    try:
        for file in path.glob("*.safetensors"):
            with safe_open(file, "pt") as weights:
                if any("pooler." in name for name in weights.keys()):  # noqa: SIM118 (no mapping)
                    return True
    except (OSError, SafetensorError) as error:
        raise _unusable(path, error) from None
    return False


def _check_order(path: Path, labels: Sequence[str]) -> None:
    """Refuse a head for the same classes in another order: it would answer with wrong names."""
    config = _config(path, {})
    if not str((config.architectures or ["none"])[0]).endswith("ForSequenceClassification"):
        return
    stated = [str(name).casefold() for _, name in sorted((config.id2label or {}).items())]
    declared = {label.casefold(): label for label in labels}
    if stated != list(declared) and sorted(stated) == sorted(declared):
        raise ModelError(
            f"the head in {path} has the run's classes in another order",
            f"set data.labels to {[declared[name] for name in stated]}",
        )


def _load(
    path: Path,
    auto: Any,
    fields: dict[str, Any],
    device: torch.device,
    seed: int,
    weights: WeightFormat = FLOAT32,
) -> LoadedModel:
    pruning = read_pruning(path)
    config = _config(path, fields)
    if pruning:
        check_shapes(pruning, config)
    try:
        with quiet():
            built = _empty_model(auto, config, pruning)
            _check_size(built, path)
            model = _with_weights(type(built), config, path, seed)
            tokenizer = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    except ModelError:
        raise
    except Exception as error:  # of many kinds, as in learning.models.loader
        raise _unusable(path, error) from None
    if pruning:
        model.__class__ = type(built).__bases__[0]  # only its building was special
    if weights != FLOAT32:
        held_weights.convert(model, weights, device)
    torch.nn.Module.to(model, device)  # transformers wraps `to` in a way that loses its types
    torch.nn.Module.eval(model)
    return LoadedModel(model, _padded(tokenizer, model, path))


def _unusable(path: Path, error: Exception) -> ModelError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return ModelError(f"model directory {path} cannot be loaded: {reason}", _REMEDY)


def _config(path: Path, fields: dict[str, Any]) -> PretrainedConfig:
    try:
        with quiet():
            config = AutoConfig.from_pretrained(
                path, local_files_only=True, trust_remote_code=False, **fields
            )
        layers, names = int(config.num_hidden_layers), [*(config.architectures or ["none"])]
    except Exception as error:
        raise _unusable(path, error) from None
    if str(names[0]).endswith(("CausalLM", "LMHeadModel")):
        raise ModelError(
            f"model directory {path} holds a causal language model ({names[0]})",
            "use an encoder such as BERT",
        )
    if not 1 <= layers <= _MAX_LAYERS:
        raise ModelError(f"{path / 'config.json'} states {layers} layers", _REMEDY)
    # Any other name may be that of a hub repository with compiled kernels, which would be run.
    if config._attn_implementation not in (None, "eager", "sdpa"):
        raise ModelError(f"{path / 'config.json'} names attention code from elsewhere", _REMEDY)
    return config  # type: ignore[no-any-return]


def _empty_model(auto: Any, config: PretrainedConfig, pruning: Pruning | None) -> PreTrainedModel:
    """Return the model without storage; if it was pruned, of a class that builds itself pruned.

    This way transformers' own loader, which knows names and formats, fills it.
    """
    with torch.device("meta"):
        plain: PreTrainedModel = auto.from_config(config, trust_remote_code=False)
        if pruning is None:
            return plain
        kind: Any = type(plain)

        def build(self: Any, config: PretrainedConfig, *rest: Any, **options: Any) -> None:
            kind.__init__(self, config, *rest, **options)
            reshape(self, pruning)

        pruned: PreTrainedModel = type(kind.__name__, (kind,), {"__init__": build})(config)
        return pruned


def _check_size(built: PreTrainedModel, path: Path) -> None:
    """Refuse, before it takes memory, a configuration with far more weights than the files hold.

    The files hold at least a byte per weight; a head and a pooler, which may be missing, are
    smaller than all the rest.
    """
    nbytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    if (count := built.num_parameters()) > 2 * nbytes:
        raise ModelError(
            f"{path / 'config.json'} describes {count} weights, but the files have {nbytes} bytes",
            _REMEDY,
        )


def _with_weights(kind: Any, config: PretrainedConfig, path: Path, seed: int) -> PreTrainedModel:
    """Return the model with float32 weights: those of the files, and the others from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, info = kind.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the head's, and no other: checked below
            output_loading_info=True,
        )
    lacking = {*info["missing_keys"], *(each[0] for each in info["mismatched_keys"])}
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    unexpected = sorted(
        each for each in lacking if each.startswith(prefix) and "pooler" not in each
    )
    if unexpected:
        raise ModelError(
            f"the weights in {path} lack {unexpected[0]}, or have it in another shape"
            f" ({len(unexpected)} such tensors)",
            _REMEDY,
        )
    return model  # type: ignore[no-any-return]


def _padded(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, path: Path
) -> PreTrainedTokenizerBase:
    """Give the tokenizer a padding token for which the model has an embedding."""
    if tokenizer.pad_token is None:
        known = tokenizer.get_vocab()
        tokenizer.pad_token = next((each for each in _PADS if each in known), None)
    rows = embedding_rows(model)
    check_fit(tokenizer, rows, path)
    if tokenizer.pad_token is None or int(tokenizer.pad_token_id) >= rows:
        raise ModelError(
            f"the tokenizer in {path} has no padding token that the model knows",
            f"add {_PADS[0]} to its vocabulary and resize the model's embeddings",
        )
    return tokenizer
