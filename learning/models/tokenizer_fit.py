"""Check that a model's embedding has a row for every token that its tokenizer can produce.

A token without a row would fail with an index error in the tasks of all workers, so such a model is
refused before a run begins.

In the data path: `learning.models.loader` and `learning.models.encoders` call it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import ModelError

_MEDIA = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token")


def embedding_rows(model: PreTrainedModel) -> int:
    """Return the number of rows of a model's embedding, which is the limit of token ids."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def check_fit(tokenizer: PreTrainedTokenizerBase, rows: int, path: Path) -> None:
    """Raise `ModelError` if a token's id is not below the number of the embedding's rows.

    Placeholders of images and sounds that no prompt contains are allowed: a text-only model has the
    tokenizer of its family (that of Gemma 3 1B has one such token).
    """
    media = {
        str(token)
        for name, token in tokenizer.special_tokens_map.items()
        if name in _MEDIA and str(token) not in str(tokenizer.chat_template or "")
    }
    beyond = {
        index: token
        for token, index in tokenizer.get_vocab().items()
        if index >= rows and token not in media
    }
    if beyond:
        first = min(beyond)
        raise ModelError(
            f"the tokenizer in {path} has tokens that the model lacks: {beyond[first]!r} has id"
            f" {first}, but the embedding has {rows} rows ({len(beyond)} such tokens)",
            "use the model's own tokenizer, or resize its embedding (resize_token_embeddings) and"
            " save both again",
        )
    added = [index for index in tokenizer("a").input_ids if index >= rows]
    if added:
        raise ModelError(
            f"the tokenizer in {path} adds token {added[0]} to each text, but the embedding has"
            f" {rows} rows",
            "use the model's own tokenizer",
        )
