"""Tensor layout: names and shapes of an adapter's tensors, in the order in which they travel.

Messages contain its digest instead of a list of tensors. Coordinator and workers derive the same
layout, each from its own adapter. The canonical form is UTF-8 text with one line per tensor, sorted
by name: name, space, dimensions joined by `x`. The digest is the SHA-256 of this text.

    base_model.model.model.layers.0.mlp.down_proj.lora_A.weight 16x28672
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from common.errors import WireError

if TYPE_CHECKING:  # readers of records need no numpy
    from common.protocol.tensors import Array

MAX_TENSORS = 8192
MAX_LAYOUT_BYTES = 2 << 20
MAX_NAME = 300  # characters
MAX_DIMENSIONS = 8
MAX_SIZE = 2**31  # of one dimension

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorLayout:
    """Names and shapes, sorted by name.

    Raises:
        WireError: A limit is exceeded, a name has control characters or appears twice, or the names
            are not sorted.
    """

    tensors: tuple[tuple[str, Shape], ...]

    def __post_init__(self) -> None:
        _check_count(len(self.tensors))
        for name, shape in self.tensors:
            _check_tensor(name, shape)
        names = [name for name, _ in self.tensors]
        if any(names[i - 1] >= names[i] for i in range(1, len(names))):
            raise WireError("the tensor names are not sorted, or one appears twice")
        if len(self.to_bytes()) > MAX_LAYOUT_BYTES:
            raise WireError(f"the tensor layout has more than {MAX_LAYOUT_BYTES} bytes")

    @classmethod
    def of(cls, tensors: Mapping[str, Array]) -> TensorLayout:
        """Return the layout of tensors by name, in any order."""
        return cls(tuple((name, tensors[name].shape) for name in sorted(tensors)))

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> TensorLayout:
        """Parse the canonical form, which may be hostile.

        Raises:
            WireError: The bytes are not the canonical form of a layout within the limits.
        """
        if len(data) > MAX_LAYOUT_BYTES:
            raise WireError(f"a tensor layout of {len(data)} bytes is over {MAX_LAYOUT_BYTES}")
        raw = bytes(data)
        _check_count(raw.count(b"\n"))
        try:
            lines = raw.decode("utf-8").split("\n")
            layout = cls(tuple(_parse_line(line) for line in lines[:-1]))
        except ValueError:  # of UTF-8 or of a number
            raise WireError("the tensor layout is not made of names and shapes") from None
        # Whatever else `int` and `split` accept differs from the canonical form.
        if layout.to_bytes() != raw:
            raise WireError("the tensor layout is not in its canonical form")
        return layout

    def to_bytes(self) -> bytes:
        """Return the canonical form."""
        lines = (f"{name} {'x'.join(map(str, shape))}\n" for name, shape in self.tensors)
        return "".join(lines).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.tensors)


def _parse_line(line: str) -> tuple[str, Shape]:
    name, _, sizes = line.rpartition(" ")
    return name, tuple(int(size) for size in sizes.split("x")) if sizes else ()


def _check_count(count: int) -> None:
    if count > MAX_TENSORS:
        raise WireError(f"an adapter of {count} tensors is over the limit of {MAX_TENSORS}")


def _check_tensor(name: str, shape: Shape) -> None:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise WireError(f"tensor name {name!r:.80} is empty, too long or not printable")
    if len(shape) > MAX_DIMENSIONS or not all(0 < size <= MAX_SIZE for size in shape):
        raise WireError(f"tensor {name!r:.80} has shape {shape!r:.80}, which cannot travel")
