"""Removal of whole layers, attention heads and feed-forward units from an encoder.

Measurements on texts (`learning.pruning.importance`) choose the parts, and they are really removed:
the matrices get smaller, so that dense inference on any processor is faster. Layers are removed
first; then the layers are narrowed from the first to the last, each on the outputs of the narrowed
ones before it. The result is a model directory like any other, with `pruning.json` beside the
weights (`learning.pruning.record`): its manifest digest makes it a base model of its own, which a
federation then trains.

In the data path: `fccl prune` calls this before a federation starts; `learning.models.base`
resolves the directory that it writes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from common.disk_errors import describe
from common.errors import ConfigError
from common.files import apply_umask
from common.protocol.manifest import is_model_file
from learning.models.loader import quiet
from learning.progress import ProgressCallback
from learning.pruning.importance import (
    EncoderInputs,
    compensate,
    importance,
    input_moments,
    keep_layers,
    select_layers,
)
from learning.pruning.layout import Layout, head_size, layers_of, layout_of, linear
from learning.pruning.record import FILE, MAX_FFN, MAX_HEADS, MAX_LAYERS, Pruning, read_pruning

WIDTH_MULTIPLE = 16
"""Feed-forward widths are multiples of this, so that dense kernels have no ragged edge."""

_LAYER_TEXTS = 2  # batches that choose layers: they are run once per candidate


@dataclass(frozen=True)
class PruningPlan:
    """Parts to keep."""

    layers: int | tuple[int, ...] | None = None  # number, or indices from 0; None keeps all
    heads: float = 1.0  # share of every layer's heads, in (0, 1]; at least one stays
    ffn: float = 1.0  # share of every layer's feed-forward units, in (0, 1]


@dataclass(frozen=True)
class KeptParts:
    """Parts that were kept of the pruned model; indices count from 0 in it."""

    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    ffn: int


def check_plan(plan: PruningPlan, config: PretrainedConfig) -> None:
    """Check that a plan fits a model.

    Raises:
        ConfigError: A share is not above 0 and up to 1, or the model lacks such layers.
        ModelError: The architecture cannot be pruned.
    """
    layout, have = layout_of(config), int(config.num_hidden_layers)
    for name, share in (("heads", plan.heads), ("ffn", plan.ffn)):
        if not 0 < share <= 1:
            raise ConfigError(
                f"--{name} {share:g} is not a share to keep", "give one above 0 and up to 1"
            )
    remedy = f"the model has {have} layers, counted from 0"
    if isinstance(plan.layers, int) and not 1 <= plan.layers <= have:
        raise ConfigError(f"{plan.layers} layers cannot be kept", remedy)
    if isinstance(plan.layers, tuple):
        if not plan.layers or list(plan.layers) != sorted(set(plan.layers)):
            raise ConfigError("the layers to keep are not in ascending order, each once", remedy)
        if missing := [each for each in plan.layers if not 0 <= each < have]:
            raise ConfigError(f"layer {missing[0]} cannot be kept", remedy)
    limits = (
        (have, MAX_LAYERS), (config.num_attention_heads, MAX_HEADS),
        (getattr(config, layout.width), MAX_FFN),
    )  # fmt: skip
    if any(size > limit for size, limit in limits):
        raise ConfigError("the model is too large to be pruned", f"limits are {limits}")


def prune(
    model: PreTrainedModel,
    plan: PruningPlan,
    data: Sequence[EncoderInputs],
    on_progress: ProgressCallback = lambda text, fraction: None,
) -> KeptParts:
    """Make an encoder smaller, in place, by removing the parts that matter least on these texts.

    Args:
        model: An encoder with or without a head, whole or pruned before.
        plan: Must have passed `check_plan`.
        data: Texts like those that the model will read.
    """
    layout, size = layout_of(model.config), head_size(model.config)
    layers = _layers(model, plan.layers, data, on_progress)
    keep_layers(model, layers)
    stack, heads = layers_of(model), []
    ffn = ffn_width(linear(stack[0], layout.up).out_features, plan.ffn)
    for i, layer in enumerate(stack):
        on_progress("choosing heads and units", i / len(stack))
        keep_layers(model, range(i + 1))  # later ones need not run
        heads.append(_narrow(model, layer, layout, size, plan.heads, ffn, data))
        model.base_model.set_submodule(layout.layers, stack)
    on_progress("choosing heads and units", 1.0)
    model.config.num_hidden_layers = len(layers)
    setattr(model.config, layout.width, ffn)
    return KeptParts(layers, tuple(heads), ffn)


def _layers(
    model: PreTrainedModel,
    plan: int | tuple[int, ...] | None,
    data: Sequence[EncoderInputs],
    on_progress: ProgressCallback,
) -> tuple[int, ...]:
    have = len(layers_of(model))
    if isinstance(plan, tuple):
        return plan
    if plan is None or plan == have:
        return tuple(range(have))
    return select_layers(
        model, plan, data[:_LAYER_TEXTS], lambda done: on_progress("choosing layers", done)
    )


def ffn_width(have: int, share: float) -> int:
    """Return the number of units to keep: the share, rounded to the nearest multiple."""
    if share == 1:
        return have
    return min(have, max(1, round(have * share / WIDTH_MULTIPLE)) * WIDTH_MULTIPLE)


def _narrow(
    model: PreTrainedModel,
    layer: nn.Module,
    layout: Layout,
    size: int,
    share: float,
    ffn: int,
    data: Sequence[EncoderInputs],
) -> tuple[int, ...]:
    """Cut the heads and units of one layer; return the kept heads."""
    joined, down = linear(layer, layout.joined), linear(layer, layout.down)
    have = joined.in_features // size
    count = max(1, round(have * share))
    if count == have and ffn == down.in_features:
        return tuple(range(have))
    at_heads, at_units = input_moments(model, (joined, down), data)
    heads = _top(importance(joined, at_heads, size), count)
    units = _top(importance(down, at_units, 1), ffn)
    compensate(joined, at_heads, _head_inputs(heads, size))
    compensate(down, at_units, units)
    cut_layer(layer, layout, heads, units, size)
    return tuple(heads.tolist())


def _top(scores: Tensor, count: int) -> Tensor:
    return scores.topk(count).indices.sort().values


def _head_inputs(heads: Tensor, size: int) -> Tensor:
    """Return the indices of these heads' rows in query, key and value, and columns after them."""
    return (heads[:, None] * size + torch.arange(size)).flatten()


def cut_layer(layer: nn.Module, layout: Layout, heads: Tensor, units: Tensor, size: int) -> None:
    """Leave a layer only these heads and units, in place: smaller matrices, the same numbers."""
    inputs = _head_inputs(heads, size)
    for name in (layout.query, layout.key, layout.value):
        layer.set_submodule(name, _rows(linear(layer, name), inputs))
    layer.set_submodule(layout.joined, _columns(linear(layer, layout.joined), inputs))
    layer.set_submodule(layout.up, _rows(linear(layer, layout.up), units))
    layer.set_submodule(layout.down, _columns(linear(layer, layout.down), units))


def _rows(old: nn.Linear, kept: Tensor) -> nn.Linear:
    bias = None if old.bias is None else old.bias.detach()[kept]
    return _linear(old.weight.detach()[kept], bias)


def _columns(old: nn.Linear, kept: Tensor) -> nn.Linear:
    bias = None if old.bias is None else old.bias.detach()
    return _linear(old.weight.detach()[:, kept], bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    new = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    new.weight = nn.Parameter(weight.clone())
    if bias is not None:
        new.bias = nn.Parameter(bias.clone())
    return new


def make_record(kept: KeptParts, source: Path, digest: str, config: PretrainedConfig) -> Pruning:
    """Return the record of the parts kept of a source model.

    If the source was pruned itself, the record refers to the first model.

    Args:
        config: The source's configuration, from before it was pruned.
    """
    first = read_pruning(source) or _unpruned(digest, config)
    heads = (
        tuple(first.heads[layer][head] for head in own)
        for layer, own in zip(kept.layers, kept.heads, strict=True)
    )
    layers = tuple(first.layers[layer] for layer in kept.layers)
    fields = first.model_dump() | {"layers": layers, "heads": tuple(heads), "ffn": kept.ffn}
    return Pruning.model_validate(fields)


def _unpruned(digest: str, config: PretrainedConfig) -> Pruning:
    layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    width = int(getattr(config, layout_of(config).width))
    return Pruning(
        source=digest,
        layers=tuple(range(layers)),
        heads=(tuple(range(heads)),) * layers,
        ffn=width,
        source_layers=layers,
        source_heads=heads,
        source_ffn=width,
    )


def save_pruned(model: PreTrainedModel, pruning: Pruning, source: Path, out: Path) -> None:
    """Write a model directory: new weights and configuration, and the tokenizer's files unchanged.

    The same model and record give the same bytes. A write that fails leaves nothing behind.

    Raises:
        ConfigError: `out` exists and is not an empty directory, or cannot be written.
    """
    try:
        check_free(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
        try:
            with quiet():
                model.save_pretrained(temporary)
            for file in source.iterdir():
                if is_model_file(file.name) and not _is_rewritten(file.name):
                    shutil.copyfile(file, temporary / file.name)
            (temporary / FILE).write_bytes(pruning.encoded())
            apply_umask(temporary)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{out} cannot be written: {describe(error)}", "name another place"
        ) from None


def check_free(out: Path) -> None:
    """Check that nothing would be overwritten.

    Raises:
        ConfigError: `out` is a file, or a directory that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty", "name another place")


def _is_rewritten(name: str) -> bool:
    return name.startswith("model") or name in ("config.json", "generation_config.json", FILE)
