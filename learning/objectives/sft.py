"""Supervised fine-tuning: the objective that learns responses to prompts.

The loss is the mean negative log-likelihood, in nats, of the response tokens of a batch, the end of
sequence included; prompts are read but not learned. Like every objective it is a function
(model, batch) → (loss, figures).

Data path: `learning.training.batches` → here, called by `learning.training.loop`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy

from learning.objectives.tokens import IGNORED
from learning.training.batches import TokenBatch


def sft_loss(model: torch.nn.Module, batch: TokenBatch) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the mean loss per response token in nats (with gradient), and `nats`, its sum.

    The mean is over the response tokens of the whole batch that this may be a part of.
    """
    total = response_nats(model, batch)
    return total / batch.whole_target_count, {"nats": float(total.detach())}


def response_nats(model: torch.nn.Module, batch: TokenBatch) -> torch.Tensor:
    """Return the sum of −log p(response token | all before it) over a batch, in nats, float32."""
    return token_nats(model, batch)[0].sum()


def token_nats(model: torch.nn.Module, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return −log p of every response token of a batch, in nats, and the row of each.

    Returns:
        Two vectors over the N response tokens in row order: float32 with gradient, and int64.
    """
    targets = batch.labels[:, 1:]  # position t predicts token t + 1
    rows, places = (targets != IGNORED).nonzero(as_tuple=True)  # (N,), (N,)
    with _project_only(model, rows, places):
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    if logits.shape[:2] != (1, len(rows)):  # a model whose head could not be hooked
        logits = logits[rows, places]
    nats = cross_entropy(
        logits.float().view(len(rows), -1), targets[rows, places], reduction="none"
    )
    return nats, rows


@contextmanager
def _project_only(
    model: torch.nn.Module, rows: torch.Tensor, places: torch.Tensor
) -> Iterator[None]:
    """Let the output layer compute only the positions that are learned.

    The vocabulary projection is a third of a small model's work. A hook works with every
    architecture, whatever it does to the logits afterwards (scaling, capping): the layer gets (1,
    N, D) hidden states instead of (B, T, D).
    """
    head = cast(Any, model).get_output_embeddings()
    if head is None:
        yield
        return

    def select(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][rows, places][None], *inputs[1:])

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
