"""Which token follows which: counted at once over the whole text, and given to the model to begin.

A small model that sees each token once spends most of its training on learning word pairs. These
can be counted instead. Counts are smoothed (interpolated Kneser-Ney: Kneser and Ney 1995, "Improved
backing-off for m-gram language modeling"), which also keeps them sober on text of another kind,
and the model's embeddings are fitted to them; its blocks then learn only what pairs cannot say.

In the data path: `learning/offline/pretraining` starts from what `fit` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_DISCOUNT = 0.85  # taken from every seen pair and spread over the unseen; high, since text differs
_CONTEXTS = 1024  # rows of the table in one step of the fit
_FLOOR = 0.3  # pairs that a token which ends none is taken to end


@dataclass(frozen=True)
class Bigrams:
    """Smoothed statistics of token pairs over a vocabulary of V.

    Attributes:
        following: Probability of the next token (column) after a token (row); float32, (V, V).
        ending: Log of the share of distinct pairs that a token ends; float32, (V,).
        counts: How often a token occurs with a successor; float32, (V,).
    """

    following: Tensor
    ending: Tensor
    counts: Tensor


def count(stream: Tensor, pieces: int) -> Bigrams:
    """Count and smooth the pairs of a token stream; `stream` is int64, (N,), below `pieces`."""
    pairs = torch.bincount(stream[:-1] * pieces + stream[1:], minlength=pieces * pieces)
    seen = pairs.view(pieces, pieces).float()  # (V, V)
    ending = (seen > 0).sum(0) + _FLOOR  # (V,)
    ending = ending / ending.sum()
    kinds = (seen > 0).sum(1, keepdim=True).clamp(min=1)  # (V, 1)
    counts = seen.sum(1, keepdim=True)
    weights = (seen - _DISCOUNT).clamp(min=0) + _DISCOUNT * kinds * ending
    return Bigrams(weights / weights.sum(1, keepdim=True), ending.log(), counts[:, 0])


def fit(
    bigrams: Bigrams, width: int, steps: int, done: Callable[[float], None]
) -> tuple[Tensor, Tensor]:
    """Find embeddings E and output weights H with softmax(LN(E) Hᵀ) close to the bigrams.

    Args:
        bigrams: What to approach.
        width: Width d of both.
        steps: Steps of Adam; each looks at some contexts, frequent ones oftener.
        done: Told the share of steps done, 0..1.

    Returns:
        E and H, float32, both (V, d).
    """
    pieces = len(bigrams.counts)
    first = torch.randn(pieces, width)
    first[:, 0] += 3.0  # one direction that all tokens share carries the plain frequencies
    last = torch.zeros(pieces, width)
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
        rows = torch.multinomial(often, min(_CONTEXTS, pieces))
        _distance(first, last, rows, bigrams).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done((step + 1) / steps)
    return first.detach(), last.detach()


def _distance(first: Tensor, last: Tensor, rows: Tensor, bigrams: Bigrams) -> Tensor:
    """Cross-entropy, in nats, of the model's rows under the bigrams' rows."""
    with autocast():
        logits = functional.layer_norm(first[rows], first.shape[1:]) @ last.T  # (R, V)
    return functional.cross_entropy(logits.float(), bigrams.following[rows])


def autocast() -> torch.autocast:
    """bfloat16 where this processor multiplies it natively; emulated, it is slower than float32."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    native = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=native)
