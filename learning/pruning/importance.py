"""Importance of an encoder's layers, heads and feed-forward units, measured on unlabelled texts.

Heads and feed-forward units of a layer reach the residual stream through one linear map each, so
the loss of a part is the loss in the map's output. Both maps are treated alike:

- A part's importance is the expected squared norm of its contribution around its mean,
  tr(W_p Cov(x_p) W_pᵀ); the fluctuation measure of FLAP (An et al. 2024, arXiv:2312.11983), here
  with the whole covariance of a head. Head by head as in Michel et al. 2019 (arXiv:1905.10650), who
  need labels and gradients for it; a base model that is pruned before federation has neither.
- The contribution of the removed parts is then predicted, linearly, from the parts that stay, and
  that prediction is added to their weights and the bias (least squares after selection, as He et
  al. 2017, arXiv:1707.06168, do with channels).

Whole layers are removed one at a time: the one whose absence changes the last hidden states least.
ShortGPT (Men et al. 2024, arXiv:2403.03853) ranks layers once, by what each does to its own input;
measuring again after every removal, and at the output, is ours.

In the data path: `learning.pruning.prune` decides by these numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from learning.models.loader import LoadedModel
from learning.pruning.layout import layers_of, layout_of

EncoderInputs = Mapping[str, Tensor]
"""`input_ids` and `attention_mask`, both (B, T), padded on the right."""

_BATCH = 32  # texts
_RIDGE = 1e-2  # of the mean variance: holds the prediction back where texts are few


@dataclass(frozen=True)
class Moments:
    """Mean (K,) and covariance (K, K) of a linear map's input over all tokens, in float64."""

    mean: Tensor
    covariance: Tensor


def positions(model: PreTrainedModel) -> int:
    """Return the length, in tokens, of the longest text that an encoder can read."""
    table = model.base_model.get_submodule("embeddings.position_embeddings")
    assert isinstance(table, nn.Embedding)
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from there
    return table.num_embeddings - first


def tokenise_batches(
    loaded: LoadedModel, texts: Sequence[str], max_length: int
) -> list[EncoderInputs]:
    """Tokenise texts in their order, cut to `max_length` tokens or the model's positions."""
    room, device = positions(loaded.model), loaded.model.device
    return [
        loaded.tokenizer(
            list(texts[i : i + _BATCH]),
            truncation=True,
            max_length=min(max_length, room),
            padding=True,
            padding_side="right",
            return_token_type_ids=False,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(device)
        for i in range(0, len(texts), _BATCH)
    ]


@torch.no_grad()
def input_moments(
    model: PreTrainedModel, parts: Sequence[nn.Linear], data: Sequence[EncoderInputs]
) -> list[Moments]:
    """Return mean and covariance of the inputs of these linear parts, without padding."""
    sums = [torch.zeros(part.in_features, dtype=torch.float64) for part in parts]
    grams = [torch.zeros(part.in_features, part.in_features, dtype=torch.float64) for part in parts]
    real = torch.ones(0, dtype=torch.bool)

    def make_hook(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def accumulate(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            tokens = inputs[0][real]  # (N, K)
            sums[index] += tokens.sum(0).double().cpu()
            grams[index] += (tokens.T @ tokens).double().cpu()

        return accumulate

    hooks = [part.register_forward_pre_hook(make_hook(i)) for i, part in enumerate(parts)]
    try:
        for batch in data:
            real = batch["attention_mask"].bool()
            model.base_model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    n = sum(int(batch["attention_mask"].sum()) for batch in data)
    means = [total / n for total in sums]
    return [Moments(m, g / n - m.outer(m)) for m, g in zip(means, grams, strict=True)]


def importance(part: nn.Linear, moments: Moments, size: int) -> Tensor:
    """Return the expected squared contribution of each group of inputs, around its mean: (groups,).

    Args:
        part: The linear map back to the residual stream.
        moments: Moments of its input.
        size: Inputs per group: a head's width, or 1 for feed-forward units.
    """
    weight = part.weight.detach().double().cpu()  # (H, K)
    if size == 1:
        return weight.square().sum(0) * moments.covariance.diagonal()
    groups = part.in_features // size
    weight = weight.reshape(-1, groups, size)
    blocks = moments.covariance.reshape(groups, size, groups, size)
    own = blocks.diagonal(dim1=0, dim2=2)  # (size, size, groups)
    return (torch.einsum("hgi,hgj->ijg", weight, weight) * own).sum((0, 1))


@torch.no_grad()
def compensate(part: nn.Linear, moments: Moments, kept: Tensor) -> None:
    """Let the kept inputs of a linear map replace, as well as they can, those that will be removed.

    In place. Afterwards the weights of the removed inputs are zero: removing them changes nothing.
    `part`, `moments` as in `importance`; `kept` are the indices of the kept inputs.
    """
    removed = torch.ones(part.in_features, dtype=torch.bool)
    removed[kept] = False
    if not removed.any():
        return
    weight = part.weight.detach().double().cpu()
    inner = moments.covariance[kept][:, kept]
    inner.diagonal().add_(max(_RIDGE * float(inner.diagonal().mean()), 1e-12))
    predicted = torch.linalg.solve(inner, moments.covariance[kept][:, removed])  # (kept, removed)
    added = weight[:, removed] @ predicted.T  # (H, kept)
    if part.bias is not None:
        missing = weight[:, removed] @ moments.mean[removed] - added @ moments.mean[kept]
        part.bias.add_(missing.to(part.bias))
    weight[:, kept] += added
    weight[:, removed] = 0
    part.weight.copy_(weight)


def select_layers(
    model: PreTrainedModel,
    count: int,
    data: Sequence[EncoderInputs],
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[int, ...]:
    """Return the layers that remain when the least important one is removed until `count` are left.

    A layer is as important as its absence turns the last hidden states away from those of the whole
    model: one minus their cosine, averaged over tokens. Every removal runs all of `data` once per
    remaining layer. The model is left unchanged.
    """
    kept = list(range(len(layers_of(model))))
    whole = [_last_states(model, kept, batch) for batch in data]
    runs, done = sum(range(count + 1, len(kept) + 1)), 0

    def importance_of(layer: int) -> float:
        nonlocal done
        rest = [each for each in kept if each != layer]
        turned = [
            1 - torch.cosine_similarity(_last_states(model, rest, batch), states, dim=-1)
            for batch, states in zip(data, whole, strict=True)
        ]
        done += 1
        on_progress(done / runs)
        return float(torch.cat(turned).mean())

    while len(kept) > count:
        kept.remove(min(kept, key=importance_of))
    return tuple(kept)


@torch.no_grad()
def _last_states(model: PreTrainedModel, layers: Sequence[int], batch: EncoderInputs) -> Tensor:
    """Return the last hidden states of the real tokens (N, H) with these layers only."""
    whole = layers_of(model)
    keep_layers(model, layers)
    try:
        states: Tensor = model.base_model(**batch)[0]
    finally:
        model.base_model.set_submodule(layout_of(model.config).layers, whole)
    return states[batch["attention_mask"].bool()]


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Leave an encoder only the layers with these indices; in place, weights untouched."""
    whole = layers_of(model)
    stack = nn.ModuleList(whole[i] for i in layers)
    model.base_model.set_submodule(layout_of(model.config).layers, stack)
