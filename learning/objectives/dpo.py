"""Direct preference optimisation: the objective that learns which of two answers is preferred.

The policy π is held to a reference π_ref, the adapter version with which the phase began: the same
for all clients. Its log-probabilities are constants, computed once per client and carried in the
examples, so that a training step runs one model, not two.

Data path: `learning.data.row_types` (rows) → here → `learning.training.batches` → here (`Preferring.loss`,
in `learning.training.loop`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerBase

from common.protocol.tasks import DpoSettings
from learning.data.row_types import PreferencePair
from learning.evaluation.measurement import BATCH, Measurement, inference
from learning.objectives.sft import token_nats
from learning.objectives.template import format_prompt
from learning.objectives.tokens import (
    NO_ROOM,
    EncodedRows,
    TokenisedExample,
    end_id,
    make_example,
    plain_ids,
    prompt_ids,
)
from learning.training import batches
from learning.training.batches import TokenBatch
from learning.training.fast_path import fast_path

TOO_LONG = "an answer does not fit beside its prompt"
SAME_TOKENS = "both answers have the same tokens"


@dataclass(frozen=True)
class TokenisedPair:
    """One tokenised preference pair; `reference` is log π_ref of chosen and rejected, in nats."""

    chosen: TokenisedExample
    rejected: TokenisedExample
    reference: tuple[float, float] | None = None

    @property
    def length(self) -> int:
        """Tokens of the longer answer with its prompt: what both are padded to."""
        return max(self.chosen.length, self.rejected.length)


@dataclass(frozen=True)
class PairBatch:
    """B pairs as 2B rows, all chosen answers first.

    Attributes:
        rows: Chosen, then rejected.
        lengths: Response tokens of each row, float32 (2B,).
        reference: log π_ref of each row, float32 (2B,).
    """

    rows: TokenBatch
    lengths: torch.Tensor
    reference: torch.Tensor

    @property
    def size(self) -> int:
        """Pairs, B."""
        return self.rows.size // 2

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return self.rows.tokens

    @property
    def target_count(self) -> int:
        """The loss is a mean over pairs."""
        return self.size


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[PreferencePair], max_length: int
) -> EncodedRows[TokenisedPair]:
    """Tokenises pairs; one of which any part does not fit into `max_length` is skipped, not cut.

    A cut answer has lost its end, and the preference was for the whole: π would learn lengths.

    Raises:
        ModelError: The tokenizer has no end-of-sequence token.
    """
    end = end_id(tokenizer)
    prompts = prompt_ids(tokenizer, [format_prompt(row.prompt) for row in rows])
    chosen = plain_ids(tokenizer, [row.chosen.strip() for row in rows])
    rejected = plain_ids(tokenizer, [row.rejected.strip() for row in rows])
    pairs: list[TokenisedPair] = []
    kept: list[int] = []
    skipped: Counter[str] = Counter()
    for place, (asked, good, bad) in enumerate(zip(prompts, chosen, rejected, strict=True)):
        room = max_length - len(asked) - 1  # for the end of sequence
        if room < 1:
            skipped[NO_ROOM] += 1
        elif max(len(good), len(bad)) > room:
            skipped[TOO_LONG] += 1
        elif good == bad:
            skipped[SAME_TOKENS] += 1
        else:
            one = make_example(asked, [*good, end], len(rows[place].chosen.strip().encode()))
            other = make_example(asked, [*bad, end], len(rows[place].rejected.strip().encode()))
            pairs.append(TokenisedPair(one, other))
            kept.append(place)
    return EncodedRows(tuple(pairs), tuple(kept), dict(skipped))


def collate(pairs: Sequence[TokenisedPair], device: torch.device | None = None) -> PairBatch:
    """Pads pairs to the longest of all answers. Pairs without a reference count as zero."""
    answers = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    known = [p.reference or (0.0, 0.0) for p in pairs]
    reference = [chosen for chosen, _ in known] + [rejected for _, rejected in known]
    return PairBatch(
        batches.collate(answers, device),
        torch.tensor([float(a.target_count) for a in answers], device=device),
        torch.tensor(reference, device=device),
    )


def log_probabilities(
    model: torch.nn.Module, pairs: Sequence[TokenisedPair], *, autocast: bool = False
) -> list[tuple[float, float]]:
    """Log π(answer | prompt) of chosen and rejected, summed over response tokens, in nats."""
    device = next(model.parameters()).device
    order = batches.length_order(pairs)
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(pairs)
    done = 0
    with inference(model, autocast=autocast), fast_path(model, autocast=autocast):
        for batch in batches.sorted_batches(pairs, BATCH // 2, partial(collate, device=device)):
            sums = _sums(model, batch.rows)[0].view(2, -1).T.tolist()
            for place, (chosen, rejected) in zip(order[done:], sums, strict=False):
                found[place] = (chosen, rejected)
            done += batch.size
    return found


def with_reference(
    pairs: Sequence[TokenisedPair], reference: Sequence[tuple[float, float]]
) -> tuple[TokenisedPair, ...]:
    """Pairs that carry their reference's log-probabilities."""
    return tuple(
        replace(pair, reference=known) for pair, known in zip(pairs, reference, strict=True)
    )


def preference_loss(
    scores: torch.Tensor, lengths: torch.Tensor, settings: DpoSettings
) -> torch.Tensor:
    """The loss of each pair.

    With h = score_chosen − score_rejected: DPO (Rafailov et al. 2023, eq. 7) is −log σ(β·h);
    smoothed by ε (Mitchell 2023, "A note on DPO with noisy preferences"), it is
    −(1−ε)·log σ(β·h) − ε·log σ(−β·h). IPO (Azar et al. 2023, eq. 17) is (h − 1/(2β))², each score
    divided by the answer's length first, as its authors' experiments did.

    Args:
        scores: log π − log π_ref of B chosen, then B rejected answers, (2B,).
        lengths: Response tokens of each, (2B,).
        settings: β, ε, which loss.

    Returns:
        (B,).
    """
    if settings.loss == "ipo":
        chosen, rejected = (scores / lengths).chunk(2)
        return (chosen - rejected - 1 / (2 * settings.beta)) ** 2
    chosen, rejected = scores.chunk(2)
    h = settings.beta * (chosen - rejected)
    smoothing = settings.label_smoothing
    return -(1 - smoothing) * logsigmoid(h) - smoothing * logsigmoid(-h)


@dataclass(frozen=True)
class DpoObjective:
    """Preference optimisation with its settings."""

    settings: DpoSettings

    def loss(
        self, model: torch.nn.Module, batch: PairBatch
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean loss per pair, + λ · mean −log p per token of the chosen answers.

        Returns:
            The loss (a scalar with gradient); `accuracy`, the share of pairs whose chosen answer
            has the higher reward, and `margin`, the mean difference of rewards β·score.
        """
        sums, nats, rows = _sums(model, batch.rows)
        scores = sums - batch.reference
        loss = preference_loss(scores, batch.lengths, self.settings).mean()
        if self.settings.sft_weight:
            chosen = nats[rows < batch.size]
            loss = loss + self.settings.sft_weight * chosen.mean()
        one, other = scores.detach().chunk(2)
        figures = {
            "accuracy": float(_right(one - other).mean()),
            "margin": float(self.settings.beta * (one - other).mean()),
        }
        return loss, figures

    def measure(
        self, model: torch.nn.Module, pairs: Sequence[TokenisedPair], *, autocast: bool = False
    ) -> Measurement:
        """Mean loss, and the share of pairs whose chosen answer has the higher reward.

        Where a model is its own reference, every pair is a tie, and a tie counts half.
        """
        device = next(model.parameters()).device
        loss = right = 0.0
        with inference(model, autocast=autocast):
            for batch in batches.sorted_batches(pairs, BATCH // 2, partial(collate, device=device)):
                value, figures = self.loss(model, batch)
                loss += float(value) * batch.size
                right += figures["accuracy"] * batch.size
        return Measurement(loss / len(pairs), right / len(pairs))


def _sums(
    model: torch.nn.Module, rows: TokenBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log π of each row, (2B,); and −log p of every response token with its row, (N,) each."""
    nats, owner = token_nats(model, rows)
    sums = torch.zeros(rows.size, device=nats.device).index_add(0, owner, -nats)
    return sums, nats, owner


def _right(difference: torch.Tensor) -> torch.Tensor:
    return (difference > 0).float() + 0.5 * (difference == 0).float()
