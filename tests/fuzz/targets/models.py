"""Adapters, safetensors files and chat templates; torch is imported where it is needed."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from safetensors.numpy import save

from common.run_directory.version_files import read_tensors
from tests.fuzz import mutate
from tests.fuzz.target import Reader, Target

CONFIG = {
    "peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["c_attn", "c_fc"],
    "bias": "none", "lora_dropout": 0.0, "rank_pattern": {}, "use_dora": False,
    "task_type": "CAUSAL_LM",
}  # fmt: skip


def _weights() -> bytes:
    tensors = {"layer.lora_A.weight": np.ones((8, 4), np.float32)}
    return bytes(save(tensors, {"format": "pt", "fccl": "{}"}))


def _adapter(folder: Path) -> Reader:
    from learning.models.exported_adapter import WEIGHTS, check_settings, read_exported
    from tests.support import records

    def read_adapter(data: bytes) -> None:
        try:
            config, weights = msgpack.unpackb(data)
            (folder / "adapter_config.json").write_bytes(config)
            (folder / WEIGHTS).write_bytes(weights)
        except (ValueError, TypeError, msgpack.UnpackException):
            return
        assert records.TASK.lora is not None
        check_settings(read_exported(folder), records.TASK.lora)

    return read_adapter


def _safetensors(folder: Path) -> Reader:
    path = folder / "model.safetensors"

    def read_file(data: bytes) -> None:
        path.write_bytes(data)
        read_tensors(path)

    return read_file


def _template(folder: Path) -> Reader:
    from learning.prompts.choice import choose_prompt
    from tests.support.chat_models import FORMS, chat_tokenizer

    tokenizer: Any = chat_tokenizer(FORMS["smollm2"])
    path = folder / "template.jinja"

    def read_template(data: bytes) -> None:
        path.write_bytes(data)
        choose_prompt(str(path), tokenizer, ["all"], date(2026, 11, 27))

    return read_template


def _templates() -> list[bytes]:
    from tests.support.chat_models import CHATML, GEMMA, LLAMA3

    marked = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}"
        "{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    own = ["{{ raise_exception('no') }}", "{{ strftime_now('%d %b %Y') }}" + CHATML]
    return [text.encode() for text in (CHATML, GEMMA, LLAMA3, marked, *own)]


PAIR = (
    mutate.inside(mutate.mutate_json, 0), mutate.inside(mutate.mutate_safetensors, 1),
    mutate.inside(mutate.mutate_bytes, 1),
)  # fmt: skip
MODELS = (
    Target("adapter-folder", _adapter,
           lambda: [msgpack.packb([json.dumps(CONFIG).encode(), _weights()])], PAIR, 8),
    Target("safetensors", _safetensors, lambda: [_weights()],
           (mutate.mutate_safetensors, mutate.mutate_bytes), 30),
    Target("chat-template", _template, _templates, (mutate.mutate_lines, mutate.mutate_bytes), 2),
)  # fmt: skip
