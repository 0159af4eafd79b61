"""Error feedback: what a lossy codec dropped from one update is added to the client's next.

u = Δ + e; send C(u); e ← u − C(u). Source: Seide et al., "1-Bit Stochastic Gradient Descent", 2014;
Karimireddy et al., "Error Feedback Fixes SignSGD", 2019. The residual e is private to the client
and lies beside its data; the caller holds the client's lock.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from common import codec
from common.records import CodecName, TensorEntry
from common.tensors import Tensors


def encode(
    name: CodecName, delta: Tensors, residual: Path
) -> tuple[tuple[TensorEntry, ...], bytes]:
    """Encode a delta, with error feedback where the codec needs it.

    Args:
        name: The codec.
        delta: Δ by tensor name.
        residual: The client's residual file; written for codecs that need feedback.

    Raises:
        ValueError: Δ holds a value that is not finite.
    """
    if name not in codec.NEEDS_FEEDBACK:
        return codec.encode(name, delta)
    carried = _load(residual)
    total = {key: tensor + carried.get(key, 0) for key, tensor in delta.items()}
    entries, data = codec.encode(name, total)
    sent = codec.decode(name, entries, data)
    residual.parent.mkdir(parents=True, exist_ok=True)
    temporary = residual.with_suffix(".tmp")
    save_file({key: total[key] - sent[key] for key in total}, temporary)
    temporary.replace(residual)
    return entries, data


def _load(path: Path) -> Tensors:
    """The residual; none where the client has not sent anything yet, or the file was torn."""
    try:
        return dict(load_file(path))
    except (FileNotFoundError, SafetensorError):
        return {}
