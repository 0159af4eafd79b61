"""Training the offline encoder from nothing: a BERT that learns to fill in masked tokens.

A minute is too short for a BERT to find out by itself which words are alike and where its
neighbors stand, so both are given to it: embeddings begin as counted company of words, and the
heads of the first block begin by looking at the nearest tokens to the left and right. Only masked
positions are scored against the vocabulary. Among the texts are the project's own opinions, since
documentation judges nothing.

In the data path: called once by `learning/offline/made`; what it saves is an ordinary BERT
directory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from learning.models.loader import quiet
from learning.offline.bigrams import autocast
from learning.offline.causal_pretraining import Report, part, schedule
from learning.offline.cooccurrence import embed
from learning.offline.corpus import PACKAGES, Passage, passages
from learning.offline.opinions import make_opinions
from learning.offline.training_texts import CorpusSizes, training_texts
from learning.offline.wordpiece_tokenizer import (
    BEGIN_ID,
    END_ID,
    FIRST_ID,
    MASK_ID,
    PAD_ID,
    train_wordpiece,
)

_SCALE = 0.04  # standard deviation of the embeddings; they are the output weights, too
_SHARPNESS = 7.0  # nats by which a head of the first block prefers its place to any other
_MASKED, _RANDOM = 0.8, 0.1  # of the chosen tokens: masked, replaced by any; the rest stay


@dataclass(frozen=True)
class EncoderPretrainingConfig:
    """All that decides what encoder comes out, given this machine's texts.

    Attributes:
        pieces: Size of the vocabulary, in tokens.
        positions: Longest text the model takes, in tokens.
        layers: Transformer blocks.
        width: Width of the residual stream; a multiple of `heads`.
        heads: Attention heads of a block.
        waves: Dimensions that begin as positions; even, at most the width of a head.
        steps: Optimizer steps.
        batch: Sequences of a step.
        length: Tokens of a sequence.
        chosen: Share of the tokens that are to be predicted.
        whole: Weight of predicting a sequence's tokens from its `[CLS]`, beside those masked.
        rate: Peak learning rate of the blocks.
        fine: Peak learning rate of the embeddings.
        opinions: Texts of `learning/offline/opinions`.
        sizes: How much of which other text is read.
        packages: Installed packages whose docstrings are read, besides the standard library.
        seed: Fixes initial weights, choice and order of the texts.
    """

    pieces: int = 6144
    positions: int = 512
    layers: int = 4
    width: int = 192
    heads: int = 4
    waves: int = 32
    steps: int = 150
    batch: int = 64
    length: int = 64
    chosen: float = 0.3
    whole: float = 0.5
    rate: float = 4e-3
    fine: float = 3e-3
    opinions: int = 5000
    sizes: CorpusSizes = CorpusSizes(tasks=0.0)  # noqa: RUF009 (frozen); a prompt template teaches nothing here
    packages: tuple[str, ...] = PACKAGES
    seed: int = 0


def pretrain(recipe: EncoderPretrainingConfig, folder: Path, report: Report) -> None:
    """Make an encoder and its tokenizer, and save both into a folder.

    Args:
        recipe: What to make.
        folder: Existing empty directory; gets safetensors weights, configuration and tokenizer.
        report: Told of progress, from 0 to 1 over the whole build.
    """
    report("reading the English on this machine", 0.0)
    found = passages(recipe.packages, part(report, "reading the English on this machine", 0, 0.2))
    texts = encoder_texts(recipe, found)
    report("learning the tokenizer", 0.2)
    tokenizer = train_wordpiece(texts, recipe.pieces, recipe.positions)
    stream = encoded(tokenizer, texts)
    with torch.random.fork_rng(devices=[]):  # the caller's randomness is not ours to move
        torch.manual_seed(recipe.seed)
        model = empty_model(recipe, len(tokenizer))
        report("counting the company of words", 0.25)
        begin(model, stream, recipe.waves)
        train(model, stream, recipe, part(report, "training", 0.3, 0.98))
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    report("saved", 1.0)


def encoder_texts(recipe: EncoderPretrainingConfig, found: list[Passage]) -> list[str]:
    """The texts to learn from, shuffled: passages of this machine, and the project's own."""
    texts = training_texts(found, recipe.sizes, recipe.seed) + make_opinions(
        recipe.seed, recipe.opinions
    )
    Random(recipe.seed).shuffle(texts)
    return texts


def encoded(tokenizer: BertTokenizer, texts: list[str]) -> Tensor:
    """All texts as one stream of token ids, each text ended by `[SEP]`; int64, (N,)."""
    ids: list[int] = []
    for text in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        ids += [*text.ids, END_ID]
    return torch.tensor(ids, dtype=torch.int64)


def empty_model(recipe: EncoderPretrainingConfig, pieces: int) -> BertForMaskedLM:
    """A BERT of the recipe's size with random weights, as its configuration makes them.

    Its configuration asks for dropout, for the sake of those who fine-tune it on a few rows.
    """
    config = BertConfig(
        vocab_size=pieces,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=4 * recipe.width,
        max_position_embeddings=recipe.positions,
        pad_token_id=PAD_ID,
    )
    return BertForMaskedLM(config)


def begin(model: BertForMaskedLM, stream: Tensor, waves: int) -> None:
    """Give a model what can be counted or is known: words, frequencies, positions, neighbors.

    Args:
        model: Any BERT.
        stream: Token ids that the model is to learn from, (N,).
        waves: Last dimensions of the embeddings, kept for positions; the others are for words.
    """
    table = model.bert.embeddings.word_embeddings.weight
    places = model.bert.embeddings.position_embeddings.weight
    pieces, width = table.shape
    words = width - waves
    # Fast enough that neighbors look unlike; uneven, or else the waves would meet again in step
    # some seventy tokens away.
    speeds = math.pi * ((torch.arange(waves // 2) + 0.5) / (waves // 2)) ** 1.2
    counts = torch.bincount(stream, minlength=pieces) + 1.0
    with torch.no_grad():
        table.zero_()
        table[:, :words] = _SCALE * math.sqrt(words) * embed(stream, pieces, words)
        places.zero_()
        places[:, words:] = _SCALE * math.sqrt(2) * _waves(torch.arange(len(places)), speeds)
        model.bert.embeddings.token_type_embeddings.weight.zero_()
        model.cls.predictions.bias.copy_((counts / counts.sum()).log())
        model.cls.predictions.transform.dense.weight.add_(torch.eye(width))
        _look_around(model, speeds)


def _waves(places: Tensor, speeds: Tensor) -> Tensor:
    """Cosine and sine of places (P,) at F speeds, in radians per token; (P, 2F), in turn."""
    angles = places[:, None] * speeds  # (P, F)
    return torch.stack((angles.cos(), angles.sin()), dim=2).flatten(1)


def _look_around(model: BertForMaskedLM, speeds: Tensor) -> None:
    """Point the heads of the first block to the tokens at -1, +1, -2, +2 …: one place each.

    The score of two places is a sum of cosines of their distance, times the speeds; turning the
    query by a head's own distance puts the peak there.
    """
    heads, waves = model.config.num_attention_heads, 2 * len(speeds)
    size = model.config.hidden_size // heads
    attention = "bert.encoder.layer.0.attention.self"
    queries = model.get_parameter(f"{attention}.query.weight")
    keys = model.get_parameter(f"{attention}.key.weight")
    # After the embeddings' layer norm a pair of waves has the squared length 2.
    gain = math.sqrt(_SHARPNESS * math.sqrt(size) / waves)
    for head in range(heads):
        distance = (head // 2 + 1) * (1 if head % 2 else -1)
        cos, sin = (distance * speeds).cos(), (distance * speeds).sin()
        turns = torch.stack((cos, -sin, sin, cos), dim=1).view(-1, 2, 2)  # (F, 2, 2)
        turn: Tensor = torch.block_diag(*turns)  # type: ignore[no-untyped-call]
        own = slice(head * size, (head + 1) * size)
        queries[own].zero_()[:waves, -waves:] = gain * turn
        keys[own].zero_()[:waves, -waves:] = gain * torch.eye(waves)


def train(
    model: BertForMaskedLM,
    stream: Tensor,
    recipe: EncoderPretrainingConfig,
    done: Callable[[float], None],
) -> None:
    """Train in place on sequences cut from a token stream, each pass in a new order.

    Every other step begins at a random position, so that all positions are learned from short
    sequences; the steps between begin at the first, as users' texts do.

    Args:
        model: Any BERT of the recipe's positions.
        stream: Token ids, (N,), longer than one sequence.
        recipe: Number, size and rate of the steps.
        done: Told the share of steps done, 0..1.
    """
    rows = sequences(stream, recipe.length)
    draw = torch.Generator().manual_seed(recipe.seed)
    optimizer = _optimizer(model)
    last = recipe.positions - recipe.length
    # In evaluation mode, since few tokens are seen twice: dropout would only slow it down.
    model.eval()  # type: ignore[no-untyped-call]
    order = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.randperm(len(rows), generator=draw)
        batch, order = rows[order[: recipe.batch]], order[recipe.batch :]
        for group, rate in zip(optimizer.param_groups, (recipe.fine, recipe.rate), strict=True):
            group["lr"] = rate * schedule(step, recipe.steps)
        start = int(torch.randint(last + 1, (1,), generator=draw)) if step % 2 else 0
        shown, hidden = masked(batch, recipe.chosen, len(model.cls.predictions.bias), draw)
        states = encode(model, shown, start)
        cost = loss(model, states, batch, hidden) + recipe.whole * bag_loss(model, states, batch)
        cost.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done((step + 1) / recipe.steps)


def _optimizer(model: BertForMaskedLM) -> torch.optim.Optimizer:
    """AdamW over two groups: what began as counts, without decay, and the rest."""
    counted = [*model.bert.embeddings.parameters(), model.cls.predictions.bias]
    known = {id(each) for each in counted}
    rest = [each for each in model.parameters() if id(each) not in known]
    return torch.optim.AdamW(
        [{"params": counted, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.05}],
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def sequences(stream: Tensor, length: int) -> Tensor:
    """Cut a stream into rows of `[CLS]`, `length` - 2 tokens and `[SEP]`; int64, (R, length)."""
    inner = length - 2
    rows = stream[: len(stream) // inner * inner].view(-1, inner)
    begin, end = (torch.full((len(rows), 1), each) for each in (BEGIN_ID, END_ID))
    return torch.cat((begin, rows, end), dim=1)


def masked(
    batch: Tensor, chosen: float, pieces: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide some tokens of a (B, T) batch as BERT does (Devlin et al. 2019, section 3.1).

    Args:
        batch: Token ids, int64.
        chosen: Share of the tokens to choose; special tokens never are.
        pieces: Size of the vocabulary that random tokens are drawn from.
        draw: Source of randomness.

    Returns:
        The batch with chosen tokens masked, replaced or left; and which were chosen, bool, (B, T).
    """
    hidden = (torch.rand(batch.shape, generator=draw) < chosen) & (batch >= FIRST_ID)
    fate = torch.rand(batch.shape, generator=draw)
    other = torch.randint(FIRST_ID, pieces, batch.shape, generator=draw)
    shown = torch.where(hidden & (fate < _MASKED), MASK_ID, batch)
    return torch.where(hidden & (fate >= 1 - _RANDOM), other, shown), hidden


def encode(model: BertForMaskedLM, shown: Tensor, start: int) -> Tensor:
    """Last states of a (B, T) batch put at position `start`; (B, T, d)."""
    positions = torch.arange(start, start + shown.shape[1])[None]  # (1, T)
    with autocast():
        states: Tensor = model.bert(shown, position_ids=positions)[0]
    return states


def loss(model: BertForMaskedLM, states: Tensor, batch: Tensor, hidden: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of the hidden tokens of a (B, T) batch."""
    with autocast():
        logits = model.cls.predictions(states[hidden])  # (M, V)
    return functional.cross_entropy(logits.float(), batch[hidden])


def bag_loss(model: BertForMaskedLM, states: Tensor, batch: Tensor) -> Tensor:
    """Mean cross-entropy, in nats, of all tokens of a (B, T) batch under their own `[CLS]`.

    Nothing else teaches `[CLS]`, from which a classifier reads, to gather what a text says.
    """
    with autocast():
        logits = model.cls.predictions(states[:, 0])  # (B, V)
    each: Tensor = -logits.float().log_softmax(dim=1).gather(1, batch)  # (B, T)
    return each[batch >= FIRST_ID].mean()
