"""A BERT encoder whose frozen lower layers are computed once, for texts that are known.

Layers below the lowest trained one give the same hidden states in every step. Here each position
of each text becomes a token of its own, whose embedding is its hidden state. The result is an
ordinary base model with the upper layers, and rows for it. Both compute the same as before, but for
rounding, in a fraction of the time. Dropout is off.

The hidden state is the output w ⊙ n + b of a layer norm. The embedding holds n, whose mean is 0 and
whose variance is 1, and the layer norm after the embeddings is the same one, so it returns the
state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

_BATCH = 64
_SPECIAL = ("[PAD]", "[UNK]")


def precompute(
    model: Path, texts: Sequence[str], layers: int, max_length: int, out: Path
) -> list[str]:
    """Write the base model of the upper layers, and return the texts in its tokens.

    Args:
        model: Directory of a BERT encoder.
        texts: All texts that will ever be used.
        layers: Number of upper layers that are kept.
        max_length: Limit of a text's tokens.
        out: Directory to write.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    whole: Any = BertModel.from_pretrained(model)
    whole.eval()
    below = whole.config.num_hidden_layers - layers
    ids = [tokenizer(text, truncation=True, max_length=max_length).input_ids for text in texts]
    norm = whole.encoder.layer[below - 1].output.LayerNorm
    states = _hidden_states(whole, ids, below)
    vocabulary = {token: number for number, token in enumerate(_SPECIAL)}
    rows, words = [torch.zeros(len(_SPECIAL), whole.config.hidden_size)], list[str]()
    for number, state in enumerate(states):
        tokens = [f"{number}.{place}" for place in range(len(state))]
        vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(tokens)}
        rows.append((state - norm.bias.detach()) / norm.weight.detach())
        words.append(" ".join(tokens))
    _save(whole, layers, torch.cat(rows), out)
    _save_tokenizer(vocabulary, max_length, out)
    return words


@torch.inference_mode()
def _hidden_states(model: Any, ids: Sequence[Sequence[int]], below: int) -> list[torch.Tensor]:
    """Return the output of the layer below, for each text as (tokens, hidden size)."""
    states = [torch.empty(0)] * len(ids)
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    for start in range(0, len(order), _BATCH):
        numbers = order[start : start + _BATCH]
        length = len(ids[numbers[-1]])
        batch = torch.zeros(len(numbers), length, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for row, number in enumerate(numbers):
            batch[row, : len(ids[number])] = torch.tensor(ids[number])
            mask[row, : len(ids[number])] = 1
        found = model(input_ids=batch, attention_mask=mask, output_hidden_states=True)
        for row, number in enumerate(numbers):
            states[number] = found.hidden_states[below][row, : len(ids[number])].clone()
    return states


def _save(whole: Any, layers: int, embeddings: torch.Tensor, out: Path) -> None:
    below = whole.config.num_hidden_layers - layers
    settings = {
        **whole.config.to_dict(),
        "num_hidden_layers": layers,
        "vocab_size": len(embeddings),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    upper: Any = BertModel(BertConfig(**settings))
    norm = whole.encoder.layer[below - 1].output.LayerNorm
    with torch.no_grad():
        upper.embeddings.word_embeddings.weight.copy_(embeddings)
        upper.embeddings.position_embeddings.weight.zero_()
        upper.embeddings.token_type_embeddings.weight.zero_()
    upper.embeddings.LayerNorm.load_state_dict(norm.state_dict())
    for number, layer in enumerate(upper.encoder.layer):
        layer.load_state_dict(whole.encoder.layer[below + number].state_dict())
    upper.pooler.load_state_dict(whole.pooler.state_dict())
    upper.save_pretrained(out)


def _save_tokenizer(vocabulary: dict[str, int], max_length: int, out: Path) -> None:
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  # no password
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    fast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        model_max_length=max_length,
    ).save_pretrained(out)
