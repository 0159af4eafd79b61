"""Tensor table: the list of tensors in the header of an update or an adapter of schema 1.

Schema 2 has the digest of a tensor layout instead (`common/protocol/layout.py`). Runs of an earlier
release keep schema 1, so tables are still written and read.
"""

from __future__ import annotations

import math

from common.errors import WireError
from common.protocol import codec
from common.protocol.fields import CodecName
from common.protocol.layout import TensorLayout
from common.protocol.updates import TensorEntry


def make_table(name: CodecName, layout: TensorLayout) -> tuple[TensorEntry, ...]:
    """Return the table of tensors that are encoded by the codec `name`."""
    entries, offset = [], 0
    for tensor, shape in layout.tensors:
        nbytes = codec.tensor_bytes(name, math.prod(shape))
        entries.append(TensorEntry(name=tensor, shape=shape, offset=offset, nbytes=nbytes))
        offset += nbytes
    return tuple(entries)


def layout_of(name: CodecName, table: tuple[TensorEntry, ...]) -> TensorLayout:
    """Return the layout of the tensors in a table, which may be hostile.

    Raises:
        WireError: The names are invalid, or offsets and sizes do not follow from the shapes.
    """
    layout = TensorLayout(tuple((entry.name, entry.shape) for entry in table))
    try:
        expected = make_table(name, layout)
    except ValueError:  # sizes beyond what a header can hold
        expected = ()
    if table != expected:
        raise WireError("offsets or sizes of the tensors do not follow from their shapes")
    return layout
