"""A tiny encoder: a few thousand weights and a tokenizer of its own, made in milliseconds."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

WORDS = [
    "a",
    "good",
    "bad",
    "film",
    "plot",
    "was",
    "it",
    "and",
    "not",
    "very",
    "dull",
    "bright",
    "slow",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
BACKBONES = {"bert": BertModel, "roberta": RobertaModel, "distilbert": DistilBertModel}


def encoder_tokenizer(pad: str | None = "[PAD]") -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token=pad,
        model_max_length=32,
    )


def encoder_config(kind: str = "bert", layers: int = 4) -> PretrainedConfig:
    """Return a configuration: hidden size 32, 4 heads of 8, 64 feed-forward units, 32 positions."""
    if kind == "distilbert":
        return DistilBertConfig(
            vocab_size=24, dim=32, n_layers=layers, n_heads=4, hidden_dim=64,
            max_position_embeddings=40,
        )  # fmt: skip
    config = {"bert": BertConfig, "roberta": RobertaConfig}[kind]
    return config(
        vocab_size=24, hidden_size=32, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, pad_token_id=0,
    )  # fmt: skip


def encoder(kind: str = "bert", layers: int = 4, seed: int = 0) -> PreTrainedModel:
    """Return an encoder without a head; no weight is zero, so that each one matters."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BACKBONES[kind](encoder_config(kind, layers)).eval()
        for weight in model.parameters():
            weight.data += 0.1 * torch.randn(weight.shape)
    return model


def saved(model: PreTrainedModel, folder: Path, pad: str | None = "[PAD]") -> Path:
    model.save_pretrained(folder)
    encoder_tokenizer(pad).save_pretrained(folder)
    return folder
