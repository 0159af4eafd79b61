"""Error feedback: what a lossy codec dropped from one update is added to the client's next.

u = Δ + e; send C(u); e ← u − C(u). Source: Seide et al., "1-Bit Stochastic Gradient Descent", 2014;
Karimireddy et al., "Error Feedback Fixes SignSGD", 2019. The residual e is private to the client
and stored beside its data; the caller holds the client's lock. The new e stays beside the old one
until `worker/spool.py` has the update: whichever way a process ends, e matches what was sent. The
file names the phase of its update: the remainder of one objective means nothing to the next.

On an update's path after `worker/trainer.py`; next comes `common/protocol/codec.py`, which `encode`
calls, and then `worker/spool.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.disk_errors import disk_errors, is_refusal
from common.files import write_durable
from common.protocol import codec
from common.protocol.fields import FEEDBACK_CODECS, CodecName
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Tensors
from worker.events import GOES_ON

_PHASE = "phase"


@dataclass(frozen=True)
class Residual:
    """Files of a client's residual e."""

    current: Path  # the e that counts; one of another phase is ignored
    waiting: Path  # the next e, until its update is on the disk
    phase: int  # of the update to encode


def encode(name: CodecName, delta: Tensors, residual: Residual) -> tuple[TensorLayout, bytes]:
    """Encode Δ; for a codec that needs error feedback, add e and write the next e to `waiting`.

    Raises:
        ValueError: Δ holds a value that is not finite.
        DiskError: The disk refuses.
    """
    if name not in FEEDBACK_CODECS:
        return codec.encode(name, delta)
    carried = _load(residual)
    total = {key: tensor + carried.get(key, 0) for key, tensor in delta.items()}
    layout, data = codec.encode(name, total)
    sent = codec.decode(name, layout, data)
    left = {key: total[key] - sent[key] for key in total}
    with disk_errors(residual.waiting, GOES_ON):
        write_durable(residual.waiting, save(left, {_PHASE: str(residual.phase)}))
    return layout, data


def _load(residual: Residual) -> Tensors:
    """Return e; empty if the client has sent nothing in this phase yet, or the file was torn."""
    try:
        with safe_open(residual.current, framework="numpy") as file:
            if (file.metadata() or {}).get(_PHASE) != str(residual.phase):
                return {}
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (FileNotFoundError, SafetensorError) as error:
        if is_refusal(error):
            raise
        return {}
