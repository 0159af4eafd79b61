"""Registry of objectives: how rows become examples, examples a loss, and a model a measurement.

An objective is a value made of functions, chosen by `make_objective`; the worker's trainer, the
evaluation and the preparation of data all use it without knowing its name.

Data path: `learning.data.rows` → `encode` → `learning.training.batches` → `loss`, called by
`learning.training.loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from common.protocol.fields import ObjectiveName
from common.protocol.tasks import DpoSettings, KtoSettings, PromptSpec
from learning.evaluation.inference import evaluate
from learning.evaluation.measurement import Measurement
from learning.objectives import classification, dpo, kto, tokens
from learning.objectives.sft import sft_loss
from learning.objectives.tokens import EncodedRows, TokenisedExample
from learning.training import batches


@dataclass(frozen=True)
class Objective:
    """One way to learn. Examples and batches have types that only its own functions know.

    Attributes:
        encode: (tokenizer, rows, max_length) → the examples that fit, and counts of the others.
        collate: (examples, device, whole) → a padded batch. `whole` has all examples of the batch
            that these are a part of; None if they are all.
        loss: (model, batch) → (scalar loss with gradient, figures to report). The losses of the
            parts of a batch add up to the loss of the whole.
        measure: (model, examples, autocast=…) → loss and accuracy, without dropout.
        answers: (example) → its answers with their prompts, of which `with_reference` needs log
            π_ref; none where nothing is compared with a reference.
        with_reference: (example, log π_ref of each of its answers, in nats) → the example with
            these values.
        prepare_batch: (model, all examples of a batch, micro-batch size) → the same examples, with
            what depends on the batch as a whole. Called before the batch is split.
        dropout: Whether a model trains with its dropout. Not against a reference, which has none:
            the difference of their log-probabilities would be noise.
        least_examples: Number of examples that a client needs to train.
        eps: ε of AdamW. Gradients well below it move a weight in proportion, not at full speed.
    """

    encode: Callable[[PreTrainedTokenizerBase, Sequence[Any], int], EncodedRows[Any]]
    collate: Callable[..., Any]
    loss: Callable[[Any, Any], Any]
    measure: Callable[..., Measurement]
    answers: Callable[[Any], Sequence[TokenisedExample]] = lambda example: ()
    with_reference: Callable[[Any, Sequence[float]], Any] = lambda example, nats: example
    prepare_batch: Callable[[torch.nn.Module, Sequence[Any], int], Sequence[Any]] = (
        lambda model, examples, size: examples
    )
    dropout: bool = True
    least_examples: int = 1
    eps: float = 1e-8


def make_objective(
    name: ObjectiveName,
    settings: DpoSettings | KtoSettings | None = None,
    labels: Sequence[str] = (),
    smoothing: float = 0.0,
    prompt: PromptSpec | None = None,
) -> Objective:
    """Return the objective of that name.

    Args:
        settings: Settings of `dpo` or `kto`; None, or those of another objective, take the
            defaults.
        labels: Class names of `classification`.
        smoothing: Label smoothing of `classification` in training; from 0 to below 1.
        prompt: Prompt form of the other objectives; None is the Alpaca form.
    """
    match name:
        case "sft":
            encode = partial(tokens.encode, prompt=prompt)
            return Objective(encode, batches.collate, sft_loss, _measure_sft)
        case "dpo":
            preference = dpo.DpoObjective(
                settings if isinstance(settings, DpoSettings) else DpoSettings()
            )
            return Objective(
                partial(dpo.encode, prompt=prompt),
                dpo.collate,
                preference.loss,
                preference.measure,
                answers=dpo.answers,
                with_reference=dpo.with_reference,
                dropout=False,
            )
        case "kto":
            rating = kto.KtoObjective(
                settings if isinstance(settings, KtoSettings) else KtoSettings()
            )
            return Objective(
                partial(kto.encode, prompt=prompt),
                kto.collate,
                rating.loss,
                rating.measure,
                answers=kto.answers,
                with_reference=kto.with_reference,
                prepare_batch=rating.prepare_batch,
                dropout=False,
                least_examples=kto.LEAST_BATCH,
            )
        case "classification":
            classes = classification.ClassEncoder(labels)
            return Objective(
                classes.encode,
                classification.collate,
                partial(classification.loss, smoothing=smoothing),
                classification.measure,
                eps=classification.ADAMW_EPS,
            )


def _measure_sft(
    model: torch.nn.Module, examples: Sequence[TokenisedExample], *, autocast: bool = False
) -> Measurement:
    return Measurement(evaluate(model, examples, autocast=autocast).values["nats_per_token"])
