"""The manifest of a base model: its files with their digests, in canonical text.

Two machines train from the same base model if and only if weights, configuration and tokenizer are
the same bytes. The SHA-256 of the manifest is the base model's digest, which every task carries.
A manifest comes from another machine, so it is treated as hostile.

`learning/models/base.py` computes it for the coordinator, and checks it on a worker.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import WireError

MAX_BYTES = 64 << 10
"""Size limit of a manifest, in bytes: about five hundred files."""

MAX_SENT = 1 << 30
"""Largest model that the coordinator sends to workers through Redis, in bytes of all its files.

Redis keeps it in memory meanwhile. Larger models come from the hub or from a directory on the
worker's machine (`fccl worker --base DIR`).
"""

_NAMES = re.compile(
    r"model(\.safetensors)?(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|(config|generation_config|pruning|tokenizer|tokenizer_config|special_tokens_map|added_tokens"
    r"|vocab)\.json"
    r"|merges\.txt|vocab\.txt|chat_template\.jinja"
    r"|(tokenizer|spiece|sentencepiece\.bpe)\.model"
)
_LINE = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,14}) (\S{1,128})")
_BLOCK = 1 << 20  # bytes read at once, so that large weights are never in memory as a whole


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: SHA-256 in hex, size in bytes, and name without a folder."""

    sha256: str
    nbytes: int
    name: str


def is_model_file(name: str) -> bool:
    """Return whether a file of this name belongs to a model: weights, configuration, tokenizer.

    This is an allow-list: pickled weights, Python sources and names with a slash are not on it.
    """
    return _NAMES.fullmatch(name) is not None


def _entry(path: Path) -> ModelFile:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return ModelFile(digest.hexdigest(), size, path.name)


def make_manifest(path: Path) -> bytes:
    """Return the manifest of a model directory: sorted lines of `sha256 nbytes name`.

    Files that do not belong to a model are left out.
    """
    found = (_entry(file) for file in path.iterdir() if is_model_file(file.name) and file.is_file())
    lines = sorted(f"{file.sha256} {file.nbytes} {file.name}\n" for file in found)
    return "".join(lines).encode()


def _parse_line(line: str) -> ModelFile:
    match = _LINE.fullmatch(line)
    if match is None or not is_model_file(match[3]):
        raise WireError(f"model manifest has the line {line[:100]!r}, which names no model file")
    return ModelFile(match[1], int(match[2]), match[3])


def total_bytes(files: Iterable[ModelFile]) -> int:
    """Return the size of all files of a model."""
    return sum(file.nbytes for file in files)


def parse_manifest(data: bytes) -> tuple[ModelFile, ...]:
    """Return the files of a manifest that another machine sent.

    Raises:
        WireError: It is too long, not canonical, or names a file that is not on the allow-list.
    """
    if len(data) > MAX_BYTES:
        raise WireError(f"model manifest has {len(data)} bytes, more than {MAX_BYTES}")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise WireError("model manifest is not ASCII text") from None
    if not text.endswith("\n"):
        raise WireError("model manifest is cut off or empty")
    lines = text[:-1].split("\n")
    files = tuple(_parse_line(line) for line in lines)
    if lines != sorted(lines) or len({file.name for file in files}) != len(files):
        raise WireError("model manifest is not sorted, or names a file twice")
    return files
