"""Weighted sums of products B·A, truncated to a rank, without any matrix of a layer's size.

For the update i of a client with rank rᵢ, which started from version v and sent ΔBᵢ and ΔAᵢ,

    Bᵢ = B_v[:, :rᵢ] + ΔBᵢ,   Aᵢ = A_v[:rᵢ] + ΔAᵢ,   Dᵢ = Bᵢ Aᵢ − B_v[:, :rᵢ] A_v[:rᵢ]

is what it changed in its layer, whatever version it started from. With the coefficients kᵢ the next
version is the best approximation of rank r of

    B_t A_t + Σ kᵢ Dᵢ = P Q,   P = [B_t | kᵢ Bᵢ … | −B_v W_v …],   Q = [A_t; Aᵢ …; A_v …]

where W_v is diagonal: entry j is the sum of kᵢ over the updates from version v with rᵢ > j. With
P = Q_p R_p and Qᵀ = Q_q R_q, the singular value decomposition of the small R_p R_qᵀ = U S Vᵀ gives
that of P Q, and the balanced factors are B = Q_p U √S and A = √S Vᵀ Q_qᵀ.

Source: FLoRA (Wang et al., 2024) stacks factors; FlexLoRA (Bai et al., 2024) truncates a dense sum.
Differences against the version that a client really started from, and their stacking, are ours.
`coordinator/aggregation/rules/product.py` applies it to every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.protocol.tensors import Array

NEGLIGIBLE = 1e-7
"""Singular values below this share of the largest one are rounding errors of float32."""

_Wide = NDArray[np.float64]


@dataclass(frozen=True)
class Factors:
    """Factors of one layer: B, of shape (out, r), and A, of shape (r, in)."""

    b: Array
    a: Array

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


@dataclass(frozen=True)
class Change:
    """Update of one layer: kᵢ, the version v that it started from, and (ΔBᵢ, ΔAᵢ) of rank rᵢ."""

    coefficient: float
    base: int
    delta: Factors


def next_factors(
    current: int,
    versions: Mapping[int, Factors],
    changes: Sequence[Change],
    fresh: Callable[[], Factors],
) -> Factors:
    """Return the factors of the next version of a layer, with the rank of the current one.

    They are float32, computed in double precision. A direction of the sum that is zero has the
    components of `fresh` for which B·A stays zero: with zeros in both factors, its gradient would
    be zero for ever.

    Args:
        current: t, the number of the current version.
        versions: Factors of version t and of every version that a change started from.
        changes: Updates to add, in the order in which they were accepted.
        fresh: Returns the factors of version 0, in which B is zero (or A, for embeddings).
    """
    left, right = stack(current, versions, changes)
    return truncate(left, right, versions[current].rank, fresh)


def stack(
    current: int, versions: Mapping[int, Factors], changes: Sequence[Change]
) -> tuple[_Wide, _Wide]:
    """Return P (out, m) and Q (m, in), whose product is the exact sum."""
    weights = {number: np.zeros(known.rank) for number, known in versions.items()}
    weights[current] += 1.0
    columns, rows = [], []
    for change in changes:
        base, rank = versions[change.base], change.delta.rank
        weights[change.base][:rank] -= change.coefficient
        moved = base.b[:, :rank].astype(np.float64) + change.delta.b
        columns.append(change.coefficient * moved)
        rows.append(base.a[:rank].astype(np.float64) + change.delta.a)
    for number, known in versions.items():
        columns.append(known.b * weights[number])
        rows.append(known.a.astype(np.float64))
    return np.hstack(columns), np.vstack(rows)


def truncate(left: _Wide, right: _Wide, rank: int, fresh: Callable[[], Factors]) -> Factors:
    """Return balanced factors of the best approximation of P Q of a rank, in the sense of norms.

    Components are sorted by their singular values, so that the first r of them are the best
    approximation of any lower rank r, too. The largest entry of each column of B is positive.
    """
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, values, vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    kept = min(rank, int(np.count_nonzero(values > NEGLIGIBLE * values[0])))
    scale = np.sqrt(values[:kept])
    b, a = q_left @ u[:, :kept] * scale, scale[:, None] * (vt[:kept] @ q_right.T)
    signs = _signs(b)
    b, a = b * signs, a * signs[:, None]
    if kept < rank:
        begun = fresh()
        b, a = _fill(b, a, begun.b[:, kept:rank], begun.a[kept:rank])
    return Factors(np.ascontiguousarray(b, np.float32), np.ascontiguousarray(a, np.float32))


def _signs(b: _Wide) -> _Wide:
    """Return the sign of each column's largest entry by magnitude, the first of equal ones."""
    largest = np.abs(b).argmax(axis=0)
    return np.where(b[largest, np.arange(b.shape[1])] < 0, -1.0, 1.0)


def _fill(b: _Wide, a: _Wide, fresh_b: Array, fresh_a: Array) -> tuple[_Wide, _Wide]:
    """Return factors with fresh components behind them, whose product is zero."""
    columns = np.where(fresh_a.any(axis=1), np.float32(0), fresh_b)
    return np.hstack([b, columns]), np.vstack([a, fresh_a])
