"""Error feedback: what a lossy codec dropped from one update is added to the client's next.

u = Δ + e; send C(u); e ← u − C(u). Source: Seide et al., "1-Bit Stochastic Gradient Descent", 2014;
Karimireddy et al., "Error Feedback Fixes SignSGD", 2019. The residual e is private to the client
and lies beside its data; the caller holds the client's lock. The new e waits beside the old one
until `worker/spool.py` has the update: whichever way a process ends, e matches what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from common import codec
from common.files import write_durable
from common.records import CodecName, TensorEntry
from common.tensors import Tensors


@dataclass(frozen=True)
class Residual:
    """Where a client's e lies, and where the next one waits until its update is on the disk."""

    current: Path
    waiting: Path


def encode(
    name: CodecName, delta: Tensors, residual: Residual
) -> tuple[tuple[TensorEntry, ...], bytes]:
    """Encode a delta, with error feedback where the codec needs it.

    Args:
        name: The codec.
        delta: Δ by tensor name.
        residual: Of the client; `waiting` is written for codecs that need feedback.

    Raises:
        ValueError: Δ holds a value that is not finite.
    """
    if name not in codec.NEEDS_FEEDBACK:
        return codec.encode(name, delta)
    carried = _load(residual.current)
    total = {key: tensor + carried.get(key, 0) for key, tensor in delta.items()}
    entries, data = codec.encode(name, total)
    sent = codec.decode(name, entries, data)
    write_durable(residual.waiting, save({key: total[key] - sent[key] for key in total}))
    return entries, data


def _load(path: Path) -> Tensors:
    """The residual; none where the client has not sent anything yet, or the file was torn."""
    try:
        return dict(load_file(path))
    except (FileNotFoundError, SafetensorError):
        return {}
