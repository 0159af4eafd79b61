"""Inner products of the updates of a buffer, from which rules choose updates.

One pass over all updates in step: memory holds one tensor of all of them at a time, and the matrix.
Sums are numpy's own, not those of a linear algebra library, whose last bits depend on the machine:
`fccl verify` must choose the same updates anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.protocol.tensors import Array

TensorReader = Callable[[], Iterator[tuple[str, Array]]]
"""Begins to read the named tensors of an update, in the order of the layout."""
Matrix = NDArray[np.float64]


def inner_products(readers: Sequence[TensorReader]) -> Matrix:
    """Return the matrix of ⟨Δᵢ, Δⱼ⟩ over all tensors, in double precision."""
    total = np.zeros((len(readers), len(readers)))
    for tensors in zip(*(reader() for reader in readers), strict=True):
        wide = [tensor.astype(np.float64).ravel() for _, tensor in tensors]
        for i, one in enumerate(wide):
            for j in range(i, len(wide)):
                total[i, j] += np.add.reduce(one * wide[j])
    return np.triu(total) + np.triu(total, 1).T


def squared_distances(products: Matrix) -> Matrix:
    """Return ‖Δᵢ − Δⱼ‖² from the inner products; 0 where two updates are equal."""
    squares = np.diag(products)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * products, 0.0)
