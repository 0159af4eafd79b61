"""The offline encoder's tokenizer: lower-cased WordPiece as BERT has it, learned from its text.

Sentences for classification come in any case, and a small vocabulary cannot afford each word
twice. What has no piece becomes the unknown token.

In the data path: `learning/offline/masked` learns it and saves it beside the weights; afterwards it
is an ordinary tokenizer directory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID, UNKNOWN_ID, BEGIN_ID, END_ID, MASK_ID = range(5)
"""The special tokens are the first pieces."""

FIRST_ID = len(SPECIAL)
"""The first piece that is text."""

_CONTINUES = "##"
_RARE = 20  # occurrences below which a character is unknown


def train_wordpiece(texts: Sequence[str], pieces: int, positions: int) -> BertTokenizer:
    """Learn a vocabulary of at most `pieces` pieces, for a model of `positions` positions."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    found: Counter[str] = Counter()
    for text in texts:
        found.update(normalizer.normalize_str(text))
    alphabet = sorted(c for c, n in found.items() if n >= _RARE and not c.isspace())
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=pieces,
        # The trainer numbers continuing characters in the random order of a hash map, and breaks
        # ties of merges by number. Numbered here first, the same text makes the same pieces.
        special_tokens=[*SPECIAL, *(_CONTINUES + c for c in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Only the vocabulary is kept: the continuing characters are no special tokens to the user.
    return BertTokenizer(
        vocab=tokenizer.get_vocab(), do_lower_case=True, model_max_length=positions
    )
