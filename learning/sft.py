"""Supervised fine-tuning: the objective that learns responses to prompts.

An objective is a function (model, batch) → (loss, metrics), so that `learning.loop` trains any of
them. This one is the mean negative log-likelihood, in nats, of the response tokens of a batch, the
end of sequence included; prompts are read but not learned.
"""

from __future__ import annotations

import inspect

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from learning.batches import GRAIN, Batch
from learning.tokens import IGNORED


def sft(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
    """Mean loss per response token.

    Returns:
        The loss in nats (a scalar with gradient), and `nats`: its sum over the batch.
    """
    total = response_nats(model, batch)
    return total / batch.learned, {"nats": float(total.detach())}


def response_nats(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Sum over a batch of −log p(response token | all before it), in nats, as float32."""
    targets = batch.labels[:, 1:]  # position t predicts token t + 1
    first = int((targets != IGNORED).any(dim=0).nonzero()[0]) // GRAIN * GRAIN
    wanted = torch.arange(first, targets.shape[1], device=targets.device)  # (W,) from a response on
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if _can_select(model):
        # The vocabulary projection is a large part of a small model's work: skip it on prompts.
        logits = model(**inputs, logits_to_keep=wanted).logits  # (B, W, V)
    else:
        logits = model(**inputs).logits[:, wanted]
    return cross_entropy(
        logits.float().flatten(0, 1),
        targets[:, wanted].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def _can_select(model: torch.nn.Module) -> bool:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
