"""Tiny random models of the families that people bring, each with a tokenizer of its family's form.

A model has a few ten thousand weights and is made in milliseconds. Chat templates are written here
from the public descriptions of the forms.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from learning.synthetic.instructions import make_instructions

PIECES = 420  # of a vocabulary, without the special tokens
POSITIONS = 256

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('this model has no system turn') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('this model has user and assistant turns only') }}{% endif %}"
    "{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class FamilyForm:
    """The form of a family: its tokenizer's special tokens, its template and its configuration."""

    make_config: Callable[..., PretrainedConfig]
    special: tuple[str, ...]  # in the order of their ids
    eos: str
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    pieces: bool = False  # sentencepiece's form, with bytes as pieces; otherwise byte-level
    adds_bos: bool = False
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
_LLAMA = _SMALL | _HEADS
_GEMMA = _LLAMA | {"head_dim": 8}
_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
)  # fmt: skip
_GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
_GEMMA_FORM: dict[str, Any] = {
    "special": _GEMMA_TOKENS, "eos": "<eos>", "bos": "<bos>", "pad": "<pad>", "unk": "<unk>",
    "pieces": True, "adds_bos": True, "template": GEMMA,
}  # fmt: skip

FORMS: dict[str, FamilyForm] = {
    "llama": FamilyForm(
        LlamaConfig, _LLAMA3_TOKENS, "<|eot_id|>", bos="<|begin_of_text|>", adds_bos=True,
        template=LLAMA3, options=_LLAMA,
    ),
    "qwen2": FamilyForm(
        Qwen2Config, _QWEN, "<|im_end|>", pad="<|endoftext|>", template=CHATML,
        options=_LLAMA | {"tie_word_embeddings": True},
    ),
    "qwen3": FamilyForm(
        Qwen3Config, (*_QWEN, "<think>", "</think>"), "<|im_end|>", pad="<|endoftext|>",
        template=CHATML, options=_LLAMA | {"head_dim": 16, "tie_word_embeddings": True},
    ),
    "mistral": FamilyForm(
        MistralConfig, ("<unk>", "<s>", "</s>"), "</s>", bos="<s>", unk="<unk>", pieces=True,
        adds_bos=True, template=MISTRAL, options=_LLAMA | {"sliding_window": 64},
    ),
    "gemma2": FamilyForm(
        Gemma2Config, **_GEMMA_FORM,
        options=_GEMMA | {"sliding_window": 64, "query_pre_attn_scalar": 8},
    ),
    "gemma3": FamilyForm(
        Gemma3TextConfig, **_GEMMA_FORM,
        options=_GEMMA | {"sliding_window": 64, "query_pre_attn_scalar": 8},
    ),
    "phi3": FamilyForm(
        Phi3Config,
        ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>",
         "<|end|>"),
        "<|endoftext|>", bos="<s>", pad="<|endoftext|>", unk="<unk>", pieces=True, template=PHI3,
        options=_LLAMA | {"sliding_window": 64},
    ),
    "smollm2": FamilyForm(
        LlamaConfig, _QWEN, "<|im_end|>", bos="<|im_start|>", pad="<|im_end|>",
        unk="<|endoftext|>", template=CHATML, options=_LLAMA | {"tie_word_embeddings": True},
    ),
    "gpt2": FamilyForm(
        GPT2Config, ("<|endoftext|>",), "<|endoftext|>", bos="<|endoftext|>",
        unk="<|endoftext|>",
        options={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS},
    ),
    "gpt_neox": FamilyForm(
        GPTNeoXConfig, ("<|endoftext|>", "<|padding|>"), "<|endoftext|>", bos="<|endoftext|>",
        unk="<|endoftext|>",
        options=_SMALL | {"num_attention_heads": 4, "max_position_embeddings": POSITIONS},
    ),
}  # fmt: skip


def family_tokenizer(name: str, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer of a family's form, with its chat template or another one."""
    form = FORMS[name]
    core = Tokenizer.from_str(_trained(form.pieces, form.special))
    if form.adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{form.bos} $A",
            special_tokens=[(form.bos, core.token_to_id(form.bos))],
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=form.bos,
        eos_token=form.eos,
        pad_token=form.pad,
        unk_token=form.unk,
        model_max_length=POSITIONS,
    )
    tokenizer.chat_template = chat_template or form.template
    return tokenizer


@cache
def _trained(pieces: bool, special: tuple[str, ...]) -> str:
    """Return a trained tokenizer as JSON: byte-level, or pieces of words with bytes as fallback."""
    core = Tokenizer(models.BPE(byte_fallback=pieces, unk_token="<unk>" if pieces else None))
    first = list(special)
    if pieces:
        core.normalizer = normalizers.Sequence([
            normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
        ])  # fmt: skip
        core.decoder = decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ])  # fmt: skip
        first += [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES + len(special),
        special_tokens=first,
        initial_alphabet=[] if pieces else pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=12,
        show_progress=False,
    )
    rows = make_instructions(0, 100)
    text = [part for r in rows for part in (r.instruction, r.input, r.output)]
    core.train_from_iterator(text, trainer)
    whole = json.loads(core.to_str())
    # Bytes are ordinary pieces: as control tokens they would be cut out of texts.
    whole["added_tokens"] = [each for each in whole["added_tokens"] if each["content"] in special]
    return json.dumps(whole)


def family_model(
    name: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0, **options: Any
) -> PreTrainedModel:
    """Return a random model for a tokenizer; no weight is zero, so that each one matters."""
    form = FORMS[name]
    config = form.make_config(
        **{
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **form.options,
            **options,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
        for weight in model.parameters():
            weight.data += 0.05 * torch.randn(weight.shape)
    return model


def saved_family(name: str, folder: Path, chat_template: str | None = None, **options: Any) -> Path:
    """Write a model of a family with its tokenizer into a directory, and return that."""
    tokenizer = family_tokenizer(name, chat_template)
    family_model(name, tokenizer, **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
