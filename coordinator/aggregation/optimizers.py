"""Server optimizers: the step of a version from the aggregated delta D, the pseudo-gradient.

    momentum  m ← β₁ m + D                     x ← x + η m
    adagrad   m ← β₁ m + (1 − β₁) D            v ← v + D²
    adam      m as adagrad                     v ← β₂ v + (1 − β₂) D²
    yogi      m as adagrad                     v ← v − (1 − β₂) D² sign(v − D²)
              the last three: v begins with τ², x ← x + η m / (√v + τ)

There is no bias correction, as in the paper: m begins with 0, so the first steps are short.

Sources: Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification" (FedAvgM, 2019); Reddi et al., "Adaptive Federated Optimization" (2021),
algorithm 2.
"""

from __future__ import annotations

import numpy as np

from common.config.config import OptimizerConfig, OptimizerName
from common.protocol.tensors import Array, Tensors


def first_moment(name: OptimizerName, m: Array | None, delta: Array, beta: float) -> Array:
    """Return the new m of one tensor; m is None before the first step.

    `momentum` adds D whole, so that its steps grow to 1 / (1 − β₁) times D.
    """
    share = np.float32(1 if name == "momentum" else 1 - beta)
    if m is None:
        return share * delta
    return np.float32(beta) * m + share * delta


def second_moment(
    name: OptimizerName, v: Array | None, delta: Array, beta: float, tau: float
) -> Array:
    """Return the new v of one tensor; v is None before the first step."""
    square = delta * delta
    if v is None:
        v = np.full_like(delta, np.float32(tau) * np.float32(tau))
    share = np.float32(1 - beta)
    match name:
        case "adagrad":
            return v + square
        case "adam":
            return np.float32(beta) * v + share * square
        case "yogi":
            return v - share * square * np.sign(v - square)
    raise ValueError(f"{name} has no second moment")


def optimizer_step(current: Array, m: Array, v: Array | None, rate: float, tau: float) -> Array:
    """Return x + η m, or x + η m / (√v + τ) where there is a second moment.

    Args:
        current: x, one tensor of the current version.
        m: First moment with this step's delta in it.
        v: Second moment, likewise; None for `momentum`.
        rate: η.
        tau: τ, which bounds the step where v is small.
    """
    if v is None:
        return current + np.float32(rate) * m
    root: Array = np.sqrt(v)
    return current + np.float32(rate) * m / (root + np.float32(tau))


def optimize(
    config: OptimizerConfig, rate: float, current: Tensors, state: Tensors, delta: Tensors
) -> tuple[Tensors, Tensors]:
    """Return the next version's tensors, and the moments for the step after it.

    Args:
        config: The optimizer; `none` adds η D.
        rate: η.
        current: x.
        state: Moments by "m/NAME" and "v/NAME"; those that are missing begin.
        delta: D; tensors of x that it does not have stay.
    """
    result, moments = dict(current), Tensors()
    for name, d in delta.items():
        if config.name == "none":
            result[name] = current[name] + np.float32(rate) * d
            continue
        m = first_moment(config.name, state.get(f"m/{name}"), d, config.beta1)
        v = None
        if config.name != "momentum":
            v = second_moment(config.name, state.get(f"v/{name}"), d, config.beta2, config.tau)
            moments[f"v/{name}"] = v
        moments[f"m/{name}"] = m
        result[name] = optimizer_step(current[name], m, v, rate, config.tau)
    return result, moments
