"""A tiny causal model: a few thousand weights and a tokenizer of its own, made in milliseconds."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from learning.prompts.alpaca import format_prompt
from learning.synthetic.instructions import make_instructions


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [
        format_prompt(row.instruction, row.input) + row.output for row in make_instructions(0, 100)
    ]
    core.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


def tiny_model(vocabulary: int = 600, seed: int = 0) -> GPT2LMHeadModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=vocabulary,
            n_positions=256,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        return GPT2LMHeadModel(config).eval()


def write_sharded_model(folder: Path) -> Path:
    """Write a tiny model whose weights are in four files with an index."""
    tiny_tokenizer().save_pretrained(folder)
    tiny_model().save_pretrained(folder, max_shard_size="60KB")
    return folder


def write_smallest_model(folder: Path) -> None:
    """Write a model of some 100 kB with its tokenizer, for runs that are kept as files."""
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=256, n_embd=8, n_layer=1, n_head=1,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
