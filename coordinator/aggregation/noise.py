"""Gaussian noise of a version from a secret seed, the same to the bit on every machine.

    uniform values   SHAKE-256 of the seed, the tensor's name and the number of the block
    normal values    Φ⁻¹(u), Wichura, "Algorithm AS 241", Applied Statistics 37 (3), 1988

Whoever guesses the state of the generator can subtract the noise, and much of it shows where an
update is zero; therefore a cryptographic function makes the uniform values. `fccl verify` draws
the same noise again, perhaps years later: numpy does not promise the values of its generators from
one release to the next, nor equal last bits of its logarithm on all processors. So this file uses
arithmetic only, which IEEE 754 determines.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SEED_BYTES = 32
BLOCK = 1 << 16
"""Values that are drawn at a time: their intermediate results fit into a processor's cache."""

NoiseSeeds = Callable[[int], bytes]
"""Returns the seed of a version's noise."""
_Wide = NDArray[np.float64]

# Coefficients of numerator and denominator, highest power first, for |u − ½| ≤ 0.425; then for
# r = √(−log min(u, 1 − u)) up to 5, and above.
_CENTRE = (
    (
        2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
        4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
        1.3314166789178437745e2, 3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
        2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
        4.2313330701600911252e1, 1.0,
    ),
)  # fmt: skip
_TAIL = (
    (
        7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
        1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
        4.63033784615654529590e0, 1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
        1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
        2.05319162663775882187e0, 1.0,
    ),
)  # fmt: skip
_FAR_TAIL = (
    (
        2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
        2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
        5.46378491116411436990e0, 6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
        7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
        5.99832206555887937690e-1, 1.0,
    ),
)  # fmt: skip


def secret_seed(version: int) -> bytes:
    """Return a fresh seed for a version, which nobody can guess."""
    return secrets.token_bytes(SEED_BYTES)


def reproducible_seeds(seed: int) -> NoiseSeeds:
    """Return seeds that follow from a number, for simulations: their noise protects nobody."""
    return lambda version: hashlib.sha256(f"noise {seed} {version}".encode()).digest()


def gaussian(seed: bytes, name: str, size: int) -> _Wide:
    """Return independent values of the standard normal distribution, float64 of shape (size,).

    Args:
        seed: Secret, of `SEED_BYTES` bytes.
        name: Name of the tensor; each has values of its own.
        size: Number of values.
    """
    values = np.empty(size)
    for start in range(0, size, BLOCK):
        part = values[start : start + BLOCK]
        part[:] = inverse_normal(_uniform(seed, name, start // BLOCK, part.size))
    return values


def _uniform(seed: bytes, name: str, block: int, size: int) -> _Wide:
    """Return values (k + ½) / 2⁵² in (0, 1), with k of 52 random bits."""
    content = seed + block.to_bytes(8, "little") + name.encode()
    bits = np.frombuffer(hashlib.shake_256(content).digest(8 * size), "<u8") >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def inverse_normal(u: _Wide) -> _Wide:
    """Return Φ⁻¹(u) for 0 < u < 1, with a relative error of about 1e-15."""
    q = u - 0.5
    r = 0.180625 - q * q  # 0.425² − q²
    result = q * _ratio(_CENTRE, r)
    [tail] = np.nonzero(r < 0)
    if tail.size:
        r = np.sqrt(-_log(np.minimum(u[tail], 1 - u[tail])))
        far = _ratio(_FAR_TAIL, r - 5)
        result[tail] = np.where(r <= 5, _ratio(_TAIL, r - 1.6), far) * np.sign(q[tail])
    return result


def _ratio(coefficients: tuple[Sequence[float], Sequence[float]], x: _Wide) -> _Wide:
    numerator, denominator = coefficients
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: Sequence[float], x: _Wide) -> _Wide:
    value = np.full(x.shape, coefficients[0])
    for each in coefficients[1:]:
        value = value * x + each
    return value


def _log(x: _Wide) -> _Wide:
    """Return log(x) of positive values: k log 2 + 2 artanh((m − 1)/(m + 1)), with x = m · 2ᵏ."""
    m, k = np.frexp(x)
    low = m < np.sqrt(0.5)
    m, k = np.where(low, 2 * m, m), np.where(low, k - 1, k)
    s = (m - 1) / (m + 1)  # at most 0.172
    series = _polynomial([1 / n for n in range(23, 0, -2)], s * s)
    result: _Wide = k * 0.6931471805599453 + 2 * s * series
    return result
