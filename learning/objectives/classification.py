"""Classification: the objective that learns the class of a text, with an encoder and a head.

The head travels with the adapter; version 0 fixes its initial values. The loss is the mean
cross-entropy over texts, in nats.

A client whose texts are nearly all of one class learns first, in a few steps, that this class is
frequent; averaged over clients with different classes, nothing of that remains. So the logarithm of
the client's own class frequencies is added to the logits while it trains (logit adjustment: Menon
et al. 2021, arXiv:2007.07314, eq. 10; per client FedLC: Zhang et al. 2022, arXiv:2209.00189). The
frequencies are then explained, and the texts remain to be learned.

Data path: `learning.data.row_types` (labelled texts) → here → `learning.training.batches` → `loss`,
called by `learning.training.loop`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from learning.data.row_types import LabelledText
from learning.evaluation.measurement import Measurement, evaluation_mode
from learning.objectives.tokens import EncodedRows
from learning.training.batches import computed_batches, pad

UNDECLARED_LABEL = "label outside the declared set"
ADAMW_EPS = 1e-4
"""ε of AdamW, in the units of a gradient's element. A client with texts of one class has next to no
gradient once its frequencies are explained; the usual 1e-8 would scale it up to steps of full
length, all in the direction of that class, which the other clients would have to undo.
"""


@dataclass(frozen=True)
class TokenisedText:
    """One tokenised text and its class."""

    input_ids: tuple[int, ...]  # with special tokens
    label: int  # index of its class among the labels
    offsets: tuple[float, ...] = ()  # added to the logits in training, one per class; or none

    @property
    def length(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class TextBatch:
    """Right-padded texts: ids and mask int64 (B, T), labels int64 (B,), offsets (B, C or 0)."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    offsets: torch.Tensor
    tokens: int
    whole_size: int  # texts of the whole batch, if this is a part of one

    @property
    def size(self) -> int:
        return self.input_ids.shape[0]

    @property
    def target_count(self) -> int:
        """Number of texts: the loss is a mean over them."""
        return self.size


@dataclass(frozen=True)
class ClassEncoder:
    """Tokenisation of texts for the declared classes, in the order of the head's outputs."""

    labels: Sequence[str]

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[LabelledText], max_length: int
    ) -> EncodedRows[TokenisedText]:
        """Tokenise texts; a longer one loses its end, one of an undeclared class is skipped."""
        index = {label: i for i, label in enumerate(self.labels)}
        kept = [i for i, row in enumerate(rows) if row.label in index]
        if not kept:
            return EncodedRows((), (), {UNDECLARED_LABEL: len(rows)} if rows else {})
        texts = [rows[i].text.strip() for i in kept]
        # `[SEP]` and other special tokens in a text are text.
        options = {"split_special_tokens": True, "verbose": False}
        whole = tokenizer(texts, **options).input_ids
        cut = tokenizer(texts, truncation=True, max_length=max_length, **options).input_ids
        examples = [
            TokenisedText(tuple(ids), index[rows[i].label])
            for i, ids in zip(kept, cut, strict=True)
        ]
        skipped = len(rows) - len(kept)
        return EncodedRows(
            tuple(examples),
            tuple(kept),
            {UNDECLARED_LABEL: skipped} if skipped else {},
            sum(len(a) > len(b) for a, b in zip(whole, cut, strict=True)),
        )


def collate(
    texts: Sequence[TokenisedText],
    device: torch.device | None = None,
    whole: Sequence[TokenisedText] | None = None,
) -> TextBatch:
    """Pad texts to the longest of them.

    `whole` has all texts of the batch that these are a part of; None if they are all.
    """
    ids, mask = pad([text.input_ids for text in texts])
    labels = torch.tensor([text.label for text in texts])
    offsets = torch.tensor([text.offsets for text in texts])
    return TextBatch(
        ids.to(device),
        mask.to(device),
        labels.to(device),
        offsets.to(device),
        sum(text.length for text in texts),
        len(whole or texts),
    )


def with_logit_adjustment(
    texts: Sequence[TokenisedText], classes: int, strength: float
) -> tuple[TokenisedText, ...]:
    """Return all n texts of a client with offsets τ · log π_c, where π_c = (n_c + 1) / (n + C).

    C is the number of classes and n_c that of the texts of class c. The strength τ is 0 to leave
    the texts as they are, and 1 to explain the frequencies exactly.
    """
    if not strength:
        return tuple(texts)
    counts = Counter(text.label for text in texts)
    total = len(texts) + classes
    offsets = tuple(strength * math.log((counts[c] + 1) / total) for c in range(classes))
    return tuple(replace(text, offsets=offsets) for text in texts)


def loss(
    model: torch.nn.Module, batch: TextBatch, smoothing: float = 0.0
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the mean cross-entropy of logits with their offsets.

    The mean is over the texts of the whole batch that this may be a part of.

    With smoothing ε the target is 1 − ε + ε/C for the true class and ε/C for each other one.

    Returns:
        The loss in nats (a scalar with gradient); `accuracy`, the share of texts classified
        correctly.
    """
    logits = class_logits(model, batch)
    right = (logits.detach().argmax(-1) == batch.labels).float().mean()
    if batch.offsets.shape[1]:
        logits = logits + batch.offsets
    nats = cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
    return nats / batch.whole_size, {"accuracy": float(right)}


@dataclass(frozen=True)
class Predictions:
    """A model's results for some texts, in their order; the mean loss is in nats."""

    loss: float
    predicted: tuple[int, ...]
    true: tuple[int, ...]

    @property
    def accuracy(self) -> float:
        pairs = zip(self.predicted, self.true, strict=True)
        return sum(p == t for p, t in pairs) / len(self.true)


def predict(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> Predictions:
    """Classify texts, without dropout."""
    device = next(model.parameters()).device
    total = 0.0
    predicted: list[int] = []
    true: list[int] = []
    with evaluation_mode(model, autocast=autocast):
        for batch, logits in computed_batches(
            texts, partial(collate, device=device), lambda batch: class_logits(model, batch)
        ):
            total += float(cross_entropy(logits, batch.labels, reduction="sum"))
            predicted += logits.argmax(-1).tolist()
            true += batch.labels.tolist()
    return Predictions(total / len(texts), tuple(predicted), tuple(true))


def measure(
    model: torch.nn.Module, texts: Sequence[TokenisedText], *, autocast: bool = False
) -> Measurement:
    predictions = predict(model, texts, autocast=autocast)
    return Measurement(predictions.loss, predictions.accuracy)


def class_logits(model: torch.nn.Module, batch: TextBatch) -> torch.Tensor:
    """Return logits, float32 (B, classes)."""
    logits: torch.Tensor = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask
    ).logits
    return logits.float()
