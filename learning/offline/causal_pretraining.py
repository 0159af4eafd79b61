"""Pretraining of the offline GPT-2: one fixed recipe, a fixed number of steps.

Every choice serves the lowest loss per second on two cores: embeddings that begin as counted word
pairs, bf16 autocast where the processor has it, short sequences, a vocabulary that is cheap to
predict, and a learning rate that decays to 0. Sequences start at random positions, so that all
positions are learned from short ones.

In the data path: called once by `learning.offline.builder`; `learning.models.loader` loads what it
saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from learning.models.loader import quiet
from learning.offline.bigrams import autocast, count, fit
from learning.offline.bpe_tokenizer import END_ID, PAD_ID, as_fast_tokenizer, train_bpe
from learning.offline.corpus import PACKAGES, passages
from learning.offline.pretraining import run_steps, sub_progress
from learning.offline.training_texts import CorpusSizes, training_texts
from learning.progress import ProgressCallback

_WAVE = 0.2  # height of the position waves; the fitted embeddings have standard deviation 1


@dataclass(frozen=True)
class CausalPretrainingConfig:
    """Settings that decide which model comes out, given this machine's texts.

    The order and values of the fields are part of the key under which models are cached.
    """

    vocab_size: int = 4096
    positions: int = 512  # tokens of the longest text
    layers: int = 2  # transformer blocks
    width: int = 192  # of the residual stream; a multiple of `heads`
    heads: int = 3  # attention heads of a block
    fit_steps: int = 100  # of the embeddings to bigrams
    steps: int = 60  # of the optimizer
    batch: int = 32  # sequences of a step
    length: int = 128  # tokens of a sequence
    rate: float = 2e-3  # peak learning rate of the blocks
    embedding_rate: float = 3e-4  # peak learning rate of the fitted embeddings
    sizes: CorpusSizes = CorpusSizes()  # noqa: RUF009 (frozen)
    packages: tuple[str, ...] = PACKAGES  # read besides the standard library
    seed: int = 0  # of initial weights, and of choice and order of the texts


def pretrain(config: CausalPretrainingConfig, folder: Path, on_progress: ProgressCallback) -> None:
    """Train a model and its tokenizer, and save both in a folder, which must be empty."""
    reading = "reading the English on this machine"
    on_progress(reading, 0.0)
    local_passages = passages(config.packages, sub_progress(on_progress, reading, 0, 0.2))
    texts = training_texts(local_passages, config.sizes, config.seed)
    on_progress("learning the tokenizer", 0.2)
    tokenizer = train_bpe(texts, config.vocab_size)
    stream = token_stream(tokenizer, texts)
    with torch.random.fork_rng(devices=[]):  # leave the caller's random state alone
        torch.manual_seed(config.seed)
        model = empty_model(config, tokenizer.get_vocab_size())
        pairs = count(stream, tokenizer.get_vocab_size())
        on_fit = sub_progress(on_progress, "fitting word pairs", 0.25, 0.4)
        set_embeddings(model, *fit(pairs, config.width, config.fit_steps, on_fit))
        train(model, stream, config, sub_progress(on_progress, "training", 0.4, 0.98))
    with quiet():
        model.save_pretrained(folder)
        as_fast_tokenizer(tokenizer, config.positions).save_pretrained(folder)
    on_progress("saved", 1.0)


def token_stream(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return all texts as one stream of token ids, int64 (N,); the end token ends each text."""
    ids: list[int] = []
    for text in tokenizer.encode_batch_fast(texts):
        ids += [*text.ids, END_ID]
    return torch.tensor(ids, dtype=torch.int64)


def empty_model(config: CausalPretrainingConfig, vocab_size: int) -> GPT2LMHeadModel:
    """Return a GPT-2 with random weights; no dropout, since it sees little text twice."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=config.positions,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            activation_function="gelu_pytorch_tanh",  # GPT-2's function, as one fused operation
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=END_ID,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
            tie_word_embeddings=False,  # a pair has a first and a last token, each fitted
        )
    )


def set_embeddings(model: GPT2LMHeadModel, embedding: Tensor, output: Tensor) -> None:
    """Copy the embeddings fitted to bigrams into a model, and set its positions to gentle waves.

    Waves, because a table of positions learned from short sequences would know nothing of later
    ones; gentle, because the fit knows of no positions.
    """
    places, width = model.transformer.wpe.weight.shape
    speeds = 10_000.0 ** (-torch.arange(0, width, 2) / width)  # (d / 2,)
    angles = torch.arange(places)[:, None] * speeds  # (P, d / 2)
    with torch.no_grad():
        model.transformer.wte.weight.copy_(embedding)
        model.lm_head.weight.copy_(output)
        model.transformer.wpe.weight.copy_(_WAVE * torch.cat((angles.sin(), angles.cos()), dim=1))


def train(
    model: GPT2LMHeadModel,
    stream: Tensor,
    config: CausalPretrainingConfig,
    on_progress: Callable[[float], None],
) -> None:
    """Train in place on sequences cut from a stream of token ids, (N,); N is at least `length`."""
    rows = stream[: len(stream) // config.length * config.length].view(-1, config.length)
    last = config.positions - config.length

    def step_loss(batch: Tensor, _: int, draw: torch.Generator) -> Tensor:
        return loss(model, batch, int(torch.randint(last + 1, (1,), generator=draw)))

    model.train()
    run_steps(model, _optimizer(model), rows, config, step_loss, on_progress)
    model.eval()  # type: ignore[no-untyped-call]


def _optimizer(model: GPT2LMHeadModel) -> torch.optim.Optimizer:
    """Return AdamW over two groups: the fitted embeddings, without decay, and the blocks."""
    fitted = [model.transformer.wte.weight, model.lm_head.weight, model.transformer.wpe.weight]
    rest = list(model.transformer.h.parameters()) + list(model.transformer.ln_f.parameters())
    return torch.optim.AdamW(
        [{"params": fitted, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}],
        betas=(0.9, 0.95),
    )


def loss(model: GPT2LMHeadModel, batch: Tensor, start: int) -> Tensor:
    """Return the next token's mean cross-entropy, in nats, of a (B, T) batch put at `start`."""
    positions = torch.arange(start, start + batch.shape[1])[None]  # (1, T)
    with autocast():
        hidden = model.transformer(batch, position_ids=positions, use_cache=False)[0]
        logits = model.lm_head(hidden[:, :-1])  # (B, T - 1, V)
    return functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
