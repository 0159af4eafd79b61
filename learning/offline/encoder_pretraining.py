"""Pretraining of the offline BERT, which learns to fill in masked tokens.

A minute is too short for a BERT to find out which words are alike and where its neighbours are. So
embeddings begin as counted co-occurrences of words, and the heads of the first block begin by
attending to the nearest tokens to the left and right. Only masked positions are scored against the
vocabulary. The project's own opinions are among the texts, since documentation judges nothing.

In the data path: called once by `learning.offline.builder`; the result is an ordinary BERT
directory, which `learning.models.encoders` loads.
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
from learning.offline.cooccurrence import embed
from learning.offline.corpus import PACKAGES, Passage, passages
from learning.offline.opinions import make_opinions
from learning.offline.pretraining import run_steps, sub_progress
from learning.offline.training_texts import CorpusSizes, training_texts
from learning.offline.wordpiece_tokenizer import (
    BEGIN_ID,
    END_ID,
    FIRST_ID,
    MASK_ID,
    PAD_ID,
    train_wordpiece,
)
from learning.progress import ProgressCallback

_SCALE = 0.04  # standard deviation of the embeddings, which are the output weights, too
_SHARPNESS = 7.0  # nats by which a head of the first block prefers its neighbour to any other token
_MASKED, _RANDOM = 0.8, 0.1  # of the chosen tokens: masked, replaced by any; the rest stay


@dataclass(frozen=True)
class EncoderPretrainingConfig:
    """Settings that decide which encoder comes out, given this machine's texts.

    The order and values of the fields are part of the key under which models are cached.
    """

    vocab_size: int = 6144
    positions: int = 512  # tokens of the longest text
    layers: int = 4  # transformer blocks
    width: int = 192  # of the residual stream; a multiple of `heads`
    heads: int = 4  # attention heads of a block
    position_dims: int = 32  # dimensions that begin as positions; even, at most width / heads
    steps: int = 150  # of the optimizer
    batch: int = 64  # sequences of a step
    length: int = 64  # tokens of a sequence
    masked_share: float = 0.3  # share of the tokens that are to be predicted
    bag_weight: float = 0.5  # of predicting a sequence's tokens from its `[CLS]`
    rate: float = 4e-3  # peak learning rate of the blocks
    embedding_rate: float = 3e-3  # peak learning rate of the embeddings
    opinions: int = 5000  # number of texts of `learning.offline.opinions`
    # A prompt template teaches an encoder nothing.
    sizes: CorpusSizes = CorpusSizes(tasks=0.0)  # noqa: RUF009 (frozen)
    packages: tuple[str, ...] = PACKAGES  # read besides the standard library
    seed: int = 0  # of initial weights, and of choice and order of the texts


def pretrain(config: EncoderPretrainingConfig, folder: Path, on_progress: ProgressCallback) -> None:
    """Train an encoder and its tokenizer, and save both in a folder, which must be empty."""
    reading = "reading the English on this machine"
    on_progress(reading, 0.0)
    local_passages = passages(config.packages, sub_progress(on_progress, reading, 0, 0.2))
    texts = encoder_texts(config, local_passages)
    on_progress("learning the tokenizer", 0.2)
    tokenizer = train_wordpiece(texts, config.vocab_size, config.positions)
    stream = token_stream(tokenizer, texts)
    with torch.random.fork_rng(devices=[]):  # leave the caller's random state alone
        torch.manual_seed(config.seed)
        model = empty_model(config, len(tokenizer))
        on_progress("counting which words occur together", 0.25)
        set_initial_weights(model, stream, config.position_dims)
        train(model, stream, config, sub_progress(on_progress, "training", 0.3, 0.98))
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    on_progress("saved", 1.0)


def encoder_texts(config: EncoderPretrainingConfig, local_passages: list[Passage]) -> list[str]:
    """Return the texts to learn from, shuffled: passages of this machine and the project's own."""
    texts = training_texts(local_passages, config.sizes, config.seed)
    texts += make_opinions(config.seed, config.opinions)
    Random(config.seed).shuffle(texts)
    return texts


def token_stream(tokenizer: BertTokenizer, texts: list[str]) -> Tensor:
    """Return all texts as one stream of token ids, int64 (N,); `[SEP]` ends each text."""
    ids: list[int] = []
    for text in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False):
        ids += [*text.ids, END_ID]
    return torch.tensor(ids, dtype=torch.int64)


def empty_model(config: EncoderPretrainingConfig, vocab_size: int) -> BertForMaskedLM:
    """Return a BERT of the configured size with random weights.

    Its configuration keeps dropout, for fine-tuning on a few rows.
    """
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            max_position_embeddings=config.positions,
            pad_token_id=PAD_ID,
        )
    )


def set_initial_weights(model: BertForMaskedLM, stream: Tensor, position_dims: int) -> None:
    """Set counted or known values in a model: words, frequencies, positions, neighbours.

    The last `position_dims` dimensions of the embeddings are for positions, the others for words.
    `stream` holds the token ids of the training texts, (N,).
    """
    table = model.bert.embeddings.word_embeddings.weight
    places = model.bert.embeddings.position_embeddings.weight
    vocab_size, width = table.shape
    words = width - position_dims
    # Fast enough that neighbours look unlike; uneven, since even waves would be in step again some
    # seventy tokens away.
    speeds = math.pi * ((torch.arange(position_dims // 2) + 0.5) / (position_dims // 2)) ** 1.2
    counts = torch.bincount(stream, minlength=vocab_size) + 1.0
    with torch.no_grad():
        table.zero_()
        table[:, :words] = _SCALE * math.sqrt(words) * embed(stream, vocab_size, words)
        places.zero_()
        places[:, words:] = _SCALE * math.sqrt(2) * _waves(torch.arange(len(places)), speeds)
        model.bert.embeddings.token_type_embeddings.weight.zero_()
        model.cls.predictions.bias.copy_((counts / counts.sum()).log())
        model.cls.predictions.transform.dense.weight.add_(torch.eye(width))
        _attend_to_neighbours(model, speeds)


def _waves(places: Tensor, speeds: Tensor) -> Tensor:
    """Return cosine and sine, in turn, of places (P,) at F speeds in radians per token: (P, 2F)."""
    angles = places[:, None] * speeds  # (P, F)
    return torch.stack((angles.cos(), angles.sin()), dim=2).flatten(1)


def _attend_to_neighbours(model: BertForMaskedLM, speeds: Tensor) -> None:
    """Point the heads of the first block to the tokens at -1, +1, -2, +2 …: one offset each.

    The score of two places is a sum of cosines of their distance times the speeds; turning the
    query by a head's own offset puts the peak there.
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
    config: EncoderPretrainingConfig,
    on_progress: Callable[[float], None],
) -> None:
    """Train in place on sequences cut from a stream of token ids, (N,); N is at least `length`.

    Every other step begins at a random position, so that all positions are learned from short
    sequences; the steps between begin at the first, as users' texts do.
    """
    last = config.positions - config.length

    def step_loss(batch: Tensor, step: int, draw: torch.Generator) -> Tensor:
        start = int(torch.randint(last + 1, (1,), generator=draw)) if step % 2 else 0
        vocab_size = len(model.cls.predictions.bias)
        shown, hidden = mask_tokens(batch, config.masked_share, vocab_size, draw)
        states = encode(model, shown, start)
        masked = masked_loss(model, states, batch, hidden)
        return masked + config.bag_weight * bag_loss(model, states, batch)

    # In evaluation mode, since few tokens are seen twice: dropout would only slow it down.
    model.eval()  # type: ignore[no-untyped-call]
    rows = sequences(stream, config.length)
    run_steps(model, _optimizer(model), rows, config, step_loss, on_progress)


def _optimizer(model: BertForMaskedLM) -> torch.optim.Optimizer:
    """Return AdamW over two groups: what began as counts, without decay, and the rest."""
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


def mask_tokens(
    batch: Tensor, share: float, vocab_size: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide a share of the tokens of a (B, T) batch as BERT does (Devlin et al. 2019, section 3.1).

    Special tokens are never chosen.

    Returns:
        The batch with chosen tokens masked, replaced or left; and which were chosen, bool, (B, T).
    """
    hidden = (torch.rand(batch.shape, generator=draw) < share) & (batch >= FIRST_ID)
    treatment = torch.rand(batch.shape, generator=draw)
    other = torch.randint(FIRST_ID, vocab_size, batch.shape, generator=draw)
    shown = torch.where(hidden & (treatment < _MASKED), MASK_ID, batch)
    return torch.where(hidden & (treatment >= 1 - _RANDOM), other, shown), hidden


def encode(model: BertForMaskedLM, shown: Tensor, start: int) -> Tensor:
    """Return the last states (B, T, d) of a (B, T) batch put at position `start`."""
    positions = torch.arange(start, start + shown.shape[1])[None]  # (1, T)
    with autocast():
        states: Tensor = model.bert(shown, position_ids=positions)[0]
    return states


def masked_loss(model: BertForMaskedLM, states: Tensor, batch: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of the hidden tokens of a (B, T) batch."""
    with autocast():
        logits = model.cls.predictions(states[hidden])  # (M, V)
    return functional.cross_entropy(logits.float(), batch[hidden])


def bag_loss(model: BertForMaskedLM, states: Tensor, batch: Tensor) -> Tensor:
    """Return the mean cross-entropy, in nats, of a (B, T) batch's tokens under their own `[CLS]`.

    Nothing else teaches `[CLS]`, from which a classifier reads, to gather what a text says.
    """
    with autocast():
        logits = model.cls.predictions(states[:, 0])  # (B, V)
    each: Tensor = -logits.float().log_softmax(dim=1).gather(1, batch)  # (B, T)
    return each[batch >= FIRST_ID].mean()
