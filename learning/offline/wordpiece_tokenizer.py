"""Tokenizer of the offline BERT: lower-cased WordPiece, learned from the model's own texts.

Sentences for classification come in any case, and a small vocabulary cannot afford each word twice.
Characters outside the vocabulary become the unknown token.

In the data path: `learning.offline.encoder_pretraining` trains it and saves it beside the weights;
afterwards it is an ordinary tokenizer directory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNKNOWN_ID, BEGIN_ID, END_ID, MASK_ID = range(5)
"""Ids of the special tokens, which are the first of the vocabulary."""

FIRST_ID = len(SPECIAL)
"""Id of the first token that is text."""

_CONTINUES = "##"
_RARE = 20  # occurrences below which a character is unknown


def train_wordpiece(texts: Sequence[str], vocab_size: int, positions: int) -> BertTokenizer:
    """Learn a vocabulary of at most `vocab_size` tokens, for a model of `positions` positions."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    alphabet = sorted(c for c, n in counts.items() if n >= _RARE and not c.isspace())
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # The trainer numbers continuing characters in the random order of a hash map, and breaks
        # ties of merges by number. Numbered here first, the same text makes the same vocab_size.
        special_tokens=[*SPECIAL, *(_CONTINUES + c for c in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Only the vocabulary is kept: to the user, continuing characters are not special tokens.
    return BertTokenizer(
        vocab=tokenizer.get_vocab(), do_lower_case=True, model_max_length=positions
    )
