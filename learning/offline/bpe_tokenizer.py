"""The offline model's tokenizer: byte-level BPE as GPT-2 has it, learned from the same text.

Byte-level, so that every text has tokens and none is unknown. One special token begins and ends
a text, another pads.

In the data path: `learning/offline/pretraining` learns and saves it beside the weights; afterwards
it is an ordinary tokenizer directory that `learning/loading` reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PAD = "<|pad|>"
END_ID, PAD_ID = 0, 1
"""The special tokens are the first pieces."""


def train_bpe(texts: Iterable[str], pieces: int) -> Tokenizer:
    """Learn a vocabulary of at most `pieces` pieces (at least 258: bytes, end and pad)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def as_fast_tokenizer(tokenizer: Tokenizer, positions: int) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers knows it, for a model of `positions` positions."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        pad_token=PAD,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
