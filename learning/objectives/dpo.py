"""Direct preference optimisation: the objective that learns which of two answers is preferred.

The policy π is held close to a reference π_ref, the adapter version with which the phase began: the
same for all clients. Its log-probabilities are constants, computed once per client and carried in
the examples, so that a training step runs one model, not two.

Data path: `learning.data.row_types` (preference pairs) → here → `learning.training.batches` →
`DpoObjective.loss`, called by `learning.training.loop`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerBase

from common.protocol.tasks import DpoSettings, PromptSpec
from learning.data.row_types import PreferencePair
from learning.evaluation.inference import row_nats
from learning.evaluation.measurement import Measurement, evaluation_mode
from learning.objectives.sft import token_nats
from learning.objectives.tokens import (
    NO_ROOM,
    EncodedRows,
    TokenisedExample,
    cut_example,
)
from learning.prompts.form import EncodedText, prompt_form
from learning.training import batches
from learning.training.batches import TokenBatch
from learning.training.fast_path import fast_path

TOO_LONG = "an answer does not fit beside its prompt"
SAME_TOKENS = "both answers have the same tokens"


@dataclass(frozen=True)
class TokenisedPair:
    """One tokenised preference pair."""

    chosen: TokenisedExample
    rejected: TokenisedExample
    reference: tuple[float, float] | None = None  # log π_ref of both answers, in nats

    @property
    def length(self) -> int:
        """Tokens of the longer answer with its prompt, to which both are padded."""
        return max(self.chosen.length, self.rejected.length)


@dataclass(frozen=True)
class PairBatch:
    """B pairs as 2B rows: all chosen answers, then all rejected ones."""

    rows: TokenBatch
    lengths: torch.Tensor  # response tokens of each row, float32 (2B,)
    reference: torch.Tensor  # log π_ref of each row, float32 (2B,)
    whole_size: int  # pairs of the whole batch, if this is a part of one
    whole_chosen: int  # response tokens of its chosen answers

    @property
    def size(self) -> int:
        """Number of pairs, B."""
        return self.rows.size // 2

    @property
    def tokens(self) -> int:
        return self.rows.tokens

    @property
    def target_count(self) -> int:
        """Number of pairs: the loss is a mean over them."""
        return self.size


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[PreferencePair],
    max_length: int,
    prompt: PromptSpec | None = None,
) -> EncodedRows[TokenisedPair]:
    """Tokenise pairs; skip a pair of which any part does not fit into `max_length`.

    Pairs are not cut: a cut answer has lost its end, and the preference was for the whole, so that
    π would learn lengths.

    Args:
        prompt: The run's prompt form; None is the Alpaca form.

    Raises:
        ModelError: The prompt form does not end answers, so that a model would not stop.
    """
    form = prompt_form(tokenizer, prompt)
    _ = form.end_ids
    pairs: list[TokenisedPair] = []
    kept: list[int] = []
    skipped: Counter[str] = Counter()
    for i, (better, worse) in enumerate(form.encode_pairs(rows)):
        if isinstance(better, str):
            skipped[better] += 1
        elif isinstance(worse, str):
            skipped[worse] += 1
        elif reason := _unusable(better, worse, max_length):
            skipped[reason] += 1
        else:
            chosen, rejected = (cut_example(text, max_length) for text in (better, worse))
            pairs.append(TokenisedPair(chosen, rejected))
            kept.append(i)
    return EncodedRows(tuple(pairs), tuple(kept), dict(skipped))


def _unusable(chosen: EncodedText, rejected: EncodedText, max_length: int) -> str | None:
    if min(chosen.learned().index(True), rejected.learned().index(True)) + 2 > max_length:
        return NO_ROOM  # for one token and the end
    if max(len(chosen.ids), len(rejected.ids)) > max_length:
        return TOO_LONG
    return SAME_TOKENS if list(chosen.ids) == list(rejected.ids) else None


def collate(
    pairs: Sequence[TokenisedPair],
    device: torch.device | None = None,
    whole: Sequence[TokenisedPair] | None = None,
) -> PairBatch:
    """Pad pairs to the longest of all answers. Pairs without a reference count as zero.

    `whole` has all pairs of the batch that these are a part of; None if they are all.
    """
    all_pairs = whole or pairs
    rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    known = [p.reference or (0.0, 0.0) for p in pairs]
    reference = [chosen for chosen, _ in known] + [rejected for _, rejected in known]
    return PairBatch(
        batches.collate(rows, device),
        torch.tensor([float(a.target_count) for a in rows], device=device),
        torch.tensor(reference, device=device),
        len(all_pairs),
        sum(p.chosen.target_count for p in all_pairs),
    )


def log_probabilities(
    model: torch.nn.Module, pairs: Sequence[TokenisedPair], *, autocast: bool = False
) -> list[tuple[float, float]]:
    """Return log π(answer | prompt) of chosen and rejected, summed over tokens, in nats."""
    nats = row_nats(model, [each for pair in pairs for each in answers(pair)], autocast=autocast)
    return [(-chosen, -rejected) for chosen, rejected in zip(nats[::2], nats[1::2], strict=True)]


def answers(pair: TokenisedPair) -> tuple[TokenisedExample, TokenisedExample]:
    return pair.chosen, pair.rejected


def with_reference(pair: TokenisedPair, nats: Sequence[float]) -> TokenisedPair:
    """Return a pair with log π_ref of its answers, in the order of `answers`."""
    chosen, rejected = nats
    return replace(pair, reference=(chosen, rejected))


def preference_loss(
    scores: torch.Tensor, lengths: torch.Tensor, settings: DpoSettings
) -> torch.Tensor:
    """Return the loss of each pair, (B,).

    With h = score_chosen − score_rejected: DPO (Rafailov et al. 2023, eq. 7) is −log σ(β·h);
    smoothed by ε (Mitchell 2023, "A note on DPO with noisy preferences"), it is −(1−ε)·log σ(β·h) −
    ε·log σ(−β·h). IPO (Azar et al. 2023, eq. 17) is (h − 1/(2β))², with each score divided by the
    answer's length first, as its authors' experiments did.

    Args:
        scores: log π − log π_ref of B chosen, then B rejected answers, (2B,).
        lengths: Response tokens of each, (2B,).
        settings: β, ε, and which loss.
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
        """Return the mean loss per pair + λ · mean −log p per token of the chosen answers.

        Both means are over the whole batch that this may be a part of.

        Returns:
            The loss (a scalar with gradient); `accuracy`, the share of pairs whose chosen answer
            has the higher reward, and `margin`, the mean difference of rewards β·score.
        """
        sums, nats, rows = _sums(model, batch.rows)
        scores = sums - batch.reference
        loss = preference_loss(scores, batch.lengths, self.settings).sum() / batch.whole_size
        if self.settings.sft_weight:
            chosen = nats[rows < batch.size]
            loss = loss + self.settings.sft_weight * chosen.sum() / batch.whole_chosen
        chosen_score, rejected_score = scores.detach().chunk(2)
        difference = chosen_score - rejected_score
        figures = {
            "accuracy": float(_correct(difference).mean()),
            "margin": float(self.settings.beta * difference.mean()),
        }
        return loss, figures

    def measure(
        self, model: torch.nn.Module, pairs: Sequence[TokenisedPair], *, autocast: bool = False
    ) -> Measurement:
        """Return the mean loss, and the share of pairs whose chosen answer has the higher reward.

        A tie counts half; where a model is its own reference, every pair is one.
        """
        device = next(model.parameters()).device
        loss = right = 0.0
        tokens = batches.EVALUATION_TOKENS // 2  # a pair has two rows
        with evaluation_mode(model, autocast=autocast), fast_path(model, autocast=autocast):
            for batch, (value, figures) in batches.computed_batches(
                pairs, partial(collate, device=device), partial(self.loss, model), tokens
            ):
                loss += float(value) * batch.size
                right += figures["accuracy"] * batch.size
        return Measurement(loss / len(pairs), right / len(pairs))


def _sums(
    model: torch.nn.Module, rows: TokenBatch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log π of each row, (2B,); and −log p of every response token with its row, (N,)."""
    nats, owner = token_nats(model, rows)
    sums = torch.zeros(rows.size, device=nats.device).index_add(0, owner, -nats)
    return sums, nats, owner


def _correct(difference: torch.Tensor) -> torch.Tensor:
    return (difference > 0).float() + 0.5 * (difference == 0).float()
