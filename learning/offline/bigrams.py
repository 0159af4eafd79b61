"""Statistics of which token follows which, and embeddings fitted to them.

A small model that sees each token once spends most of its training on learning word pairs. These
can be counted instead. Counts are smoothed (interpolated Kneser-Ney: Kneser and Ney 1995, "Improved
backing-off for m-gram language modeling"), which also keeps them moderate on text of another kind,
and the model's embeddings are fitted to them; its blocks then learn only what pairs cannot say.

In the data path: `learning.offline.causal_pretraining` starts from the result of `fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_DISCOUNT = 0.85  # taken from seen pairs and spread over the unseen; high, since texts differ
_CONTEXTS = 1024  # rows of the table in one step of the fit
_FLOOR = 0.3  # added to the number of distinct pairs that a token ends


@dataclass(frozen=True)
class Bigrams:
    """Smoothed statistics of token pairs over a vocabulary of V."""

    following: Tensor  # P(next token, column | token, row); float32, (V, V)
    ending: Tensor  # log share of distinct pairs that a token ends; float32, (V,)
    counts: Tensor  # occurrences of a token with a successor; float32, (V,)


def count(stream: Tensor, vocab_size: int) -> Bigrams:
    """Count and smooth the pairs of a token stream; `stream` is int64, (N,), below `vocab_size`."""
    pairs = torch.bincount(stream[:-1] * vocab_size + stream[1:], minlength=vocab_size * vocab_size)
    seen = pairs.view(vocab_size, vocab_size).float()  # (V, V)
    ending = (seen > 0).sum(0) + _FLOOR  # (V,)
    ending = ending / ending.sum()
    kinds = (seen > 0).sum(1, keepdim=True).clamp(min=1)  # (V, 1)
    counts = seen.sum(1, keepdim=True)
    weights = (seen - _DISCOUNT).clamp(min=0) + _DISCOUNT * kinds * ending
    return Bigrams(weights / weights.sum(1, keepdim=True), ending.log(), counts[:, 0])


def fit(
    bigrams: Bigrams, width: int, steps: int, on_progress: Callable[[float], None]
) -> tuple[Tensor, Tensor]:
    """Fit embeddings E and output weights H so that softmax(LN(E) Hᵀ) comes close to the bigrams.

    Each step of Adam fits some contexts, frequent ones more often. `on_progress` gets the share of
    steps done, from 0 to 1.

    Returns:
        E and H, float32, both (V, width).
    """
    vocab_size = len(bigrams.counts)
    first = torch.randn(vocab_size, width)
    first[:, 0] += 3.0  # one direction that all tokens share carries the plain frequencies
    last = torch.zeros(vocab_size, width)
    last[:, 0] = (bigrams.ending - bigrams.ending.mean()) / 3.0
    rates = (0.1, 0.02)
    pair = (first.requires_grad_(), last.requires_grad_())
    optimizer = torch.optim.Adam(
        [{"params": [p], "lr": r} for p, r in zip(pair, rates, strict=True)], betas=(0.9, 0.95)
    )
    often = (bigrams.counts + 1) ** 0.75
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, 2 * (steps - step) / steps)
        rows = torch.multinomial(often, min(_CONTEXTS, vocab_size))
        _distance(first, last, rows, bigrams).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        on_progress((step + 1) / steps)
    return first.detach(), last.detach()


def _distance(first: Tensor, last: Tensor, rows: Tensor, bigrams: Bigrams) -> Tensor:
    """Return the cross-entropy, in nats, of the model's rows under the bigrams' rows."""
    with autocast():
        logits = functional.layer_norm(first[rows], first.shape[1:]) @ last.T  # (R, V)
    return functional.cross_entropy(logits.float(), bigrams.following[rows])


def autocast() -> torch.autocast:
    """Return bfloat16 autocast, enabled where this processor has it; emulated, it is slow."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=native)
