"""Time, memory and error of aggregation rule `product` against dense matrices.

    python -m benchmarks.products --size 2048 --updates 10 --rank 16

One layer: updates of ranks r, r/2 and r/4 from the current version and from the one before it.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from coordinator.aggregation.low_rank import Change, Factors, next_factors

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="inputs and outputs of the layer")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()
    size, rank = given.size, given.rank
    rng = np.random.default_rng(0)
    versions = {number: _factors(rng, size, rank, 1.0) for number in (4, 5)}
    ranks = [max(1, rank >> index % 3) for index in range(given.updates)]
    changes = [
        Change(1 / len(ranks), 4 + index % 2, _factors(rng, size, own, 0.1))
        for index, own in enumerate(ranks)
    ]
    fresh = _factors(rng, size, rank, 0.0)
    with threadpool_limits(1, "blas"):
        found = _measure("factors", lambda: next_factors(5, versions, changes, lambda: fresh))
        best = _measure("dense", lambda: _dense(versions, changes, rank))
    error = np.linalg.norm(found.b.astype(np.float64) @ found.a - best) / np.linalg.norm(best)
    print(f"relative difference of the two: {error:.1e}")


def _factors(rng: np.random.Generator, size: int, rank: int, scale: float) -> Factors:
    b, a = scale * rng.normal(size=(size, rank)), rng.normal(size=(rank, size))
    return Factors(b.astype(np.float32), a.astype(np.float32))


def _dense(versions: Mapping[int, Factors], changes: Sequence[Change], rank: int) -> np.ndarray:
    total = versions[5].b.astype(np.float64) @ versions[5].a
    for change in changes:
        base, delta = versions[change.base], change.delta
        b, a = base.b[:, : delta.rank].astype(np.float64), base.a[: delta.rank]
        total += change.coefficient * ((b + delta.b) @ (a + delta.a) - b @ a)
    u, values, vt = np.linalg.svd(total, full_matrices=False)
    return np.asarray((u[:, :rank] * values[:rank]) @ vt[:rank])


def _measure(name: str, compute: Callable[[], T]) -> T:
    started = time.process_time()
    compute()
    seconds = time.process_time() - started
    tracemalloc.start()
    result = compute()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{name}: {seconds:.2f} s of CPU, {peak / 2**20:.0f} MiB at the peak")
    return result


if __name__ == "__main__":
    main()
