"""Statistics of which tokens occur near each other, made into embeddings.

The counterpart of `learning.offline.bigrams` for an encoder, which reads to both sides. Positive
pointwise mutual information in a window, smoothed and factored (Levy, Goldberg and Dagan 2015,
"Improving distributional similarity with lessons learned from word embeddings"), puts words of
similar use close to each other before the first training step.

In the data path: `learning.offline.encoder_pretraining` starts from the result of `embed`.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WINDOW = 4  # tokens to each side; a pair at distance k counts 1 / k
_SMOOTHING = 0.75  # power of the context's frequency; otherwise rare contexts weigh too much
_SPARE = 20  # extra dimensions, which make the random projection exact enough


def count_cooccurrences(stream: Tensor, vocab_size: int) -> Tensor:
    """Count the pairs of a token stream (int64, (N,)) within the window; sparse, (V, V)."""
    near = range(1, min(_WINDOW, len(stream) - 1) + 1)
    keys = torch.cat([stream[:-k] * vocab_size + stream[k:] for k in near])
    weights = torch.cat([torch.full((len(stream) - k,), 1.0 / k) for k in near])
    pairs, place = torch.unique(keys, return_inverse=True)
    counts = torch.zeros(len(pairs)).index_add_(0, place, weights)
    left, right = pairs // vocab_size, pairs % vocab_size
    both = torch.stack((torch.cat((left, right)), torch.cat((right, left))))
    return _sparse(both, counts.repeat(2), vocab_size).coalesce()


def positive_pmi(counts: Tensor) -> Tensor:
    """Return positive pointwise mutual information of counted pairs, in nats; sparse, (V, V)."""
    (token, context), pairs = counts.indices(), counts.values()
    often = torch.zeros(counts.shape[0]).index_add_(0, token, pairs)  # (V,)
    expected = often**_SMOOTHING / (often**_SMOOTHING).sum()
    gain = (pairs / often[token] / expected[context]).log()
    kept = gain > 0
    return _sparse(counts.indices()[:, kept], gain[kept], counts.shape[0]).coalesce()


def embed(stream: Tensor, vocab_size: int, width: int) -> Tensor:
    """Return embeddings, float32 (V, width), of unit length, or zero for absent tokens.

    `stream` is int64, (N,), and V at least `width`. Draws from torch's global generator.
    """
    known = positive_pmi(count_cooccurrences(stream, vocab_size))
    rank = min(width + _SPARE, vocab_size)
    left, strength, _ = torch.svd_lowrank(known, q=rank, niter=3)
    vectors = (left * strength.sqrt())[:, :width]
    present = torch.bincount(stream, minlength=vocab_size) > 0
    vectors = torch.where(present[:, None], vectors - vectors[present].mean(0), 0.0)
    return torch.nn.functional.normalize(vectors)


def _sparse(indices: Tensor, values: Tensor, size: int) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, (size, size), check_invariants=False)
