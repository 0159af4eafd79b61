"""Sums over evaluated rows, which sites send instead of means so that pooling is exact.

The metrics of any set of rows follow from its sums, and the sums of several clients' rows are the
sums of their sums. `learning/evaluation/row_scores.py` adds rows up; the coordinator, the report
and the views pool and divide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from common.protocol.fields import Count, Record, RowKind, list_to_tuple

Sum = Annotated[float, Field(allow_inf_nan=False)]
NonNegativeSum = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MAX_SENT_CLASSES = 64
"""Most classes of which a confusion matrix is sent: its rows must fit into a message's header."""
MAX_CLASSES = 1000
"""Most classes of which there is a confusion matrix: as many as a run may have."""

_ConfusionRow = Annotated[
    tuple[Count, ...], Field(max_length=MAX_CLASSES), BeforeValidator(list_to_tuple)
]
Confusion = Annotated[
    tuple[_ConfusionRow, ...], Field(max_length=MAX_CLASSES), BeforeValidator(list_to_tuple)
]
"""Rows by true class, then by predicted class."""


class EvaluationSums(Record):
    """Sums over the rows of one kind; those that a kind does not have are 0.

    Attributes:
        rows: Number of rows.
        loss: Sum of the objective's loss: −log p of the responses in nats (sft), of the true
            classes (cls), or the loss of each pair (va) or answer (kto).
        tokens, bytes: Tokens and UTF-8 bytes of the responses (sft).
        likelier: Number of pairs whose chosen answer is the likelier one; a tie counts half (va).
        likelier_per_token: The same of −log p divided by the answer's tokens (va).
        rewarded: Number of pairs (va) or answers (kto) whose reward has the right sign; 0 counts
            half.
        margin: Sum of the rewards of chosen minus rejected answers (va).
        good: Number of answers that are rated good (kto).
        reward_good, reward_bad: Sum of the rewards of good and of bad answers (kto).
        correct: Number of texts that are classified correctly (cls).
        confusion: The confusion matrix (cls); empty in what is sent where there are more than
            `MAX_SENT_CLASSES`.
    """

    rows: Count
    loss: NonNegativeSum
    tokens: Count = 0
    bytes: Count = 0
    likelier: NonNegativeSum = 0.0
    likelier_per_token: NonNegativeSum = 0.0
    rewarded: NonNegativeSum = 0.0
    margin: Sum = 0.0
    good: Count = 0
    reward_good: Sum = 0.0
    reward_bad: Sum = 0.0
    correct: Count = 0
    confusion: Confusion = ()

    @property
    def sendable(self) -> bool:
        """Whether the confusion matrix, if there is one, fits into a message."""
        return len(self.confusion) <= MAX_SENT_CLASSES

    def to_send(self) -> EvaluationSums:
        """Return the sums without a confusion matrix that is too large for a message."""
        return self if self.sendable else self.model_copy(update={"confusion": ()})

    @model_validator(mode="after")
    def _add_up(self) -> EvaluationSums:
        counted = ("likelier", "likelier_per_token", "rewarded", "good", "correct")
        for name in counted:
            if getattr(self, name) > self.rows:
                raise ValueError(f"{name} is more than the number of rows")
        if self.confusion:
            if any(len(row) != len(self.confusion) for row in self.confusion):
                raise ValueError("the confusion matrix is not square")
            if sum(map(sum, self.confusion)) != self.rows:
                raise ValueError("the confusion matrix does not add up to the number of rows")
            if sum(row[i] for i, row in enumerate(self.confusion)) != self.correct:
                raise ValueError("the confusion matrix has another number of correct rows")
        if not self.rows and (self.loss or self.tokens or self.bytes):
            raise ValueError("sums over no rows must be 0")
        return self


def check_sums(kind: RowKind, sums: EvaluationSums, *, max_length: int, classes: int) -> str:
    """Return why the sums of a kind cannot be right; empty if they can.

    Args:
        kind: Kind of the rows.
        sums: Sums that a site claims.
        max_length: Limit of a row's tokens.
        classes: Number of classes; 0 unless texts are classified.
    """
    if sums.tokens > sums.rows * max_length:
        return f"{sums.tokens} tokens are more than {sums.rows} rows of {max_length} tokens have"
    if kind == "sft" and sums.tokens < sums.rows:
        return f"{sums.tokens} tokens are fewer than {sums.rows} rows"
    if len(sums.confusion) not in ({0, classes} if kind == "cls" else {0}):
        return f"the confusion matrix has {len(sums.confusion)} classes, not {classes}"
    return ""


def pool(parts: Iterable[EvaluationSums]) -> EvaluationSums:
    """Return the sums over the rows of all parts together.

    The confusion matrix is empty unless every part with rows has one.
    """
    parts = list(parts)
    with_rows = [part for part in parts if part.rows]
    complete = all(part.confusion for part in with_rows)
    matrices = [part.confusion for part in with_rows] if complete else []
    added = {
        name: sum(getattr(part, name) for part in parts)
        for name in EvaluationSums.model_fields
        if name != "confusion"
    }
    floats = {name for name, field in EvaluationSums.model_fields.items() if _is_float(field)}
    added = {name: float(value) if name in floats else value for name, value in added.items()}
    matrix = tuple(
        tuple(sum(column) for column in zip(*rows, strict=True))
        for rows in zip(*matrices, strict=True)
    )
    return EvaluationSums(**added, confusion=matrix)


def _is_float(field: object) -> bool:
    return getattr(field, "annotation", None) is float


def mean_loss(kind: RowKind, sums: EvaluationSums) -> float | None:
    """Return the objective's mean loss per token (sft), pair, answer or text; None without rows."""
    units = sums.tokens if kind == "sft" else sums.rows
    return sums.loss / units if units else None


def metric_values(kind: RowKind, sums: EvaluationSums) -> Mapping[str, float]:
    """Return the metrics of a kind by their keys, see `common.evaluation.metric_info`.

    A metric that is not defined, as the mean reward of bad answers where there are none, is
    missing; without rows all are.
    """
    if not sums.rows:
        return {}
    match kind:
        case "sft":
            return _text_values(sums)
        case "va":
            return {
                "accuracy": sums.likelier / sums.rows,
                "accuracy_per_token": sums.likelier_per_token / sums.rows,
                "reward_accuracy": sums.rewarded / sums.rows,
                "reward_margin": sums.margin / sums.rows,
                "loss": sums.loss / sums.rows,
            }
        case "kto":
            return _rating_values(sums)
        case "cls":
            return _class_values(sums)


def _text_values(sums: EvaluationSums) -> dict[str, float]:
    mean = sums.loss / max(1, sums.tokens)
    return {
        "nats_per_token": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,
        "bits_per_byte": sums.loss / math.log(2) / max(1, sums.bytes),
        "tokens": sums.tokens,
        "bytes": sums.bytes,
    }


def _rating_values(sums: EvaluationSums) -> dict[str, float]:
    values = {"reward_accuracy": sums.rewarded / sums.rows, "loss": sums.loss / sums.rows}
    bad = sums.rows - sums.good
    if sums.good:
        values["reward_good"] = sums.reward_good / sums.good
    if bad:
        values["reward_bad"] = sums.reward_bad / bad
    if sums.good and bad:
        values["reward_margin"] = values["reward_good"] - values["reward_bad"]
    return values


def _class_values(sums: EvaluationSums) -> dict[str, float]:
    values = {"loss": sums.loss / sums.rows, "accuracy": sums.correct / sums.rows}
    if not sums.confusion:
        return values
    hits = [sums.confusion[i][i] for i in range(len(sums.confusion))]
    true = [sum(row) for row in sums.confusion]
    guessed = [sum(column) for column in zip(*sums.confusion, strict=True)]
    # F1 = 2·TP / (2·TP + FP + FN), and the denominator is the rows of the class + the guesses.
    scores = [
        2 * hit / (rows + guesses)
        for hit, rows, guesses in zip(hits, true, guessed, strict=True)
        if rows
    ]
    values["macro_f1"] = sum(scores) / len(scores)
    return values
