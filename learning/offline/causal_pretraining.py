"""Training the offline base model from nothing: one fixed recipe, a fixed number of steps.

Every choice serves the lowest loss per second on two cores: embeddings that begin as counted word
pairs, bf16 autocast where the processor has it, short sequences, a vocabulary that is cheap to
predict, and a learning rate that decays to nothing. Sequences start at random positions, so that
all positions are learned from short ones.

In the data path: called once by `learning/offline/made`; what it saves is loaded by
`learning/loading`.
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
from learning.offline.training_texts import CorpusSizes, training_texts

Report = Callable[[str, float], None]

_WAVE = 0.2  # height of the position waves; the fitted embeddings have standard deviation 1


@dataclass(frozen=True)
class CausalPretrainingConfig:
    """All that decides what model comes out, given this machine's texts.

    Attributes:
        pieces: Size of the vocabulary, in tokens.
        positions: Longest text the model takes, in tokens.
        layers: Transformer blocks.
        width: Width of the residual stream; a multiple of `heads`.
        heads: Attention heads of a block.
        fitting: Steps of the fit of the embeddings to bigrams.
        steps: Optimizer steps.
        batch: Sequences of a step.
        length: Tokens of a sequence.
        rate: Peak learning rate of the blocks.
        fine: Peak learning rate of the fitted embeddings.
        sizes: How much of which text is read.
        packages: Installed packages whose docstrings are read, besides the standard library.
        seed: Fixes initial weights, choice and order of the texts.
    """

    pieces: int = 4096
    positions: int = 512
    layers: int = 2
    width: int = 192
    heads: int = 3
    fitting: int = 100
    steps: int = 60
    batch: int = 32
    length: int = 128
    rate: float = 2e-3
    fine: float = 3e-4
    sizes: CorpusSizes = CorpusSizes()  # noqa: RUF009 (frozen)
    packages: tuple[str, ...] = PACKAGES
    seed: int = 0


def pretrain(recipe: CausalPretrainingConfig, folder: Path, report: Report) -> None:
    """Make a model and its tokenizer, and save both into a folder.

    Args:
        recipe: What to make.
        folder: Existing empty directory; gets safetensors weights, configuration and tokenizer.
        report: Told of progress, from 0 to 1 over the whole build.
    """
    report("reading the English on this machine", 0.0)
    found = passages(recipe.packages, part(report, "reading the English on this machine", 0, 0.2))
    texts = training_texts(found, recipe.sizes, recipe.seed)
    report("learning the tokenizer", 0.2)
    tokenizer = train_bpe(texts, recipe.pieces)
    stream = encoded(tokenizer, texts)
    with torch.random.fork_rng(devices=[]):  # the caller's randomness is not ours to move
        torch.manual_seed(recipe.seed)
        model = empty_model(recipe, tokenizer.get_vocab_size())
        pairs = count(stream, tokenizer.get_vocab_size())
        told = part(report, "fitting word pairs", 0.25, 0.4)
        begin_with_pairs(model, *fit(pairs, recipe.width, recipe.fitting, told))
        train(model, stream, recipe, part(report, "training", 0.4, 0.98))
    with quiet():
        model.save_pretrained(folder)
        as_fast_tokenizer(tokenizer, recipe.positions).save_pretrained(folder)
    report("saved", 1.0)


def part(report: Report, message: str, start: float, end: float) -> Callable[[float], None]:
    """What a part of the build tells its own share 0..1 to; the whole hears from start to end."""
    return lambda done: report(message, start + (end - start) * done)


def encoded(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All texts as one stream of token ids, each text ended by the end token; int64, (N,)."""
    ids: list[int] = []
    for text in tokenizer.encode_batch_fast(texts):
        ids += [*text.ids, END_ID]
    return torch.tensor(ids, dtype=torch.int64)


def empty_model(recipe: CausalPretrainingConfig, pieces: int) -> GPT2LMHeadModel:
    """A GPT-2 of the recipe's size with random weights; no dropout, since it sees little twice."""
    config = GPT2Config(
        vocab_size=pieces,
        n_positions=recipe.positions,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's function, as one fused operation
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        tie_word_embeddings=False,  # a pair has a first and a last token, each fitted
    )
    return GPT2LMHeadModel(config)


def begin_with_pairs(model: GPT2LMHeadModel, embedding: Tensor, output: Tensor) -> None:
    """Give a model the embeddings fitted to bigrams, and positions as gentle waves.

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


def schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: ten steps up, level, then down to nothing over 60 %."""
    return min(1.0, (step + 1) / 10, (steps - step) / (0.6 * steps))


def train(
    model: GPT2LMHeadModel,
    stream: Tensor,
    recipe: CausalPretrainingConfig,
    done: Callable[[float], None],
) -> None:
    """Train in place on sequences cut from a token stream, each pass in a new order.

    Args:
        model: Any GPT-2 of the recipe's positions.
        stream: Token ids, (N,), longer than one sequence.
        recipe: Number, size and rate of the steps.
        done: Told the share of steps done, 0..1.
    """
    rows = stream[: len(stream) // recipe.length * recipe.length].view(-1, recipe.length)
    draw = torch.Generator().manual_seed(recipe.seed)
    fitted = [model.transformer.wte.weight, model.lm_head.weight, model.transformer.wpe.weight]
    rest = list(model.transformer.h.parameters()) + list(model.transformer.ln_f.parameters())
    rates = (recipe.fine, recipe.rate)
    optimizer = torch.optim.AdamW(
        [{"params": fitted, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.1}],
        betas=(0.9, 0.95),
    )
    last = recipe.positions - recipe.length
    model.train()
    order = torch.empty(0, dtype=torch.int64)
    for step in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.randperm(len(rows), generator=draw)
        batch, order = rows[order[: recipe.batch]], order[recipe.batch :]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, recipe.steps)
        start = int(torch.randint(last + 1, (1,), generator=draw))
        loss(model, batch, start).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done((step + 1) / recipe.steps)
    model.eval()  # type: ignore[no-untyped-call]


def loss(model: GPT2LMHeadModel, batch: Tensor, start: int) -> Tensor:
    """Mean cross-entropy of the next token, in nats, of a (B, T) batch put at position `start`."""
    positions = torch.arange(start, start + batch.shape[1])[None]  # (1, T)
    with autocast():
        hidden = model.transformer(batch, position_ids=positions, use_cache=False)[0]
        logits = model.lm_head(hidden[:, :-1])  # (B, T - 1, V)
    return functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
