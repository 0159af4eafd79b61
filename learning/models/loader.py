"""Loading of a causal language model and its tokenizer from a local directory.

Only safetensors, only local files, never code that comes with a model: a base model may come from
another machine. The libraries' log lines and progress bars are silenced here, because the command
line shows its own.

In the data path: the worker's trainer and the evaluation load their frozen base model here. Next:
`learning.models.lora`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from common.errors import ModelError
from learning.models import held_weights
from learning.models.precision import FLOAT32, WeightFormat
from learning.models.tokenizer_fit import check_fit, embedding_rows
from learning.training.out_of_memory import REMEDY, is_out_of_memory

_LOCK = threading.RLock()


@dataclass(frozen=True)
class LoadedModel:
    """A base model in memory, in evaluation mode, with a tokenizer that can pad."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars, and restore the settings afterwards.

    One thread at a time, because the settings hold for the process. So do those that transformers
    itself changes while it loads a model (one of them stops models from tying their weights): two
    threads that load at the same time restore each other's settings, and every later model of the
    process loses its tied weights.
    """
    with _LOCK, _silenced():
        yield


@contextmanager
def _silenced() -> Iterator[None]:
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load(path: Path, device: torch.device, weights: WeightFormat = FLOAT32) -> LoadedModel:
    """Load the causal language model in a directory.

    Raises:
        ModelError: The files are not a causal language model with a tokenizer.
    """
    converted = weights != FLOAT32
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                # Weights that are to be converted are mapped from their files as they are.
                dtype="auto" if converted else torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            model, info = loaded
            tokenizer = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    # A broken file raises OSError, ValueError, KeyError, RuntimeError or SafetensorError,
    # depending on the library that reads it first.
    except Exception as error:
        raise _unusable(path, error) from None
    if missing := sorted(info["missing_keys"]):  # transformers would draw them at random
        raise ModelError(
            f"the weights in {path} lack {missing[0]} ({len(missing)} such tensors)",
            "copy the whole model again, with every file that save_pretrained wrote",
        )
    check_fit(tokenizer, embedding_rows(model), path)
    if converted:
        held_weights.convert(model, weights, device)
    torch.nn.Module.to(model, device)  # transformers wraps `to` in a way that loses its types
    torch.nn.Module.eval(model)
    return LoadedModel(model, _padded(tokenizer, path))


def load_tokenizer(path: Path) -> tuple[PreTrainedTokenizerBase, PretrainedConfig]:
    """Return a model's tokenizer and configuration, without its weights.

    Raises:
        ModelError: The files cannot be read as such.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
            config = AutoConfig.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # as many kinds as in `load`
        raise _unusable(path, error) from None
    if (rows := getattr(config.get_text_config(), "vocab_size", None)) is not None:
        check_fit(tokenizer, rows, path)
    return tokenizer, config


def _unusable(path: Path, error: Exception) -> ModelError:
    if is_out_of_memory(error):
        return ModelError(f"out of memory while the model in {path} was loaded", REMEDY)
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    if "trust_remote_code" in str(error):
        return ModelError(
            f"the model in {path} needs code that comes with it, which fccl never runs",
            "use a model of an architecture that transformers has itself",
        )
    return ModelError(
        f"model directory {path} cannot be loaded: {reason}",
        "it needs config.json, safetensors weights and a tokenizer of a causal language model",
    )


def _padded(tokenizer: PreTrainedTokenizerBase, path: Path) -> PreTrainedTokenizerBase:
    """Let a tokenizer without a padding token pad with its end token, which the mask hides."""
    if tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer in {path} has no end-of-text token", "use a model that can end a text"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
