"""Arithmetic of the ledger checker, written from docs/algorithms.md and docs/protocol.md alone."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tensors = dict[str, Floats]
Config = Mapping[str, Any]
BLOCK = 64


def decode(codec: str, data: bytes, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> Tensors:
    """Return the tensors of a payload; raise `ValueError` if its size does not fit the shapes."""
    tensors, offset = {}, 0
    for name, shape in shapes:
        size = math.prod(shape)
        length = _payload_bytes(codec, size)
        tensors[name] = _decode(codec, data[offset : offset + length], size).reshape(shape)
        offset += length
    if offset != len(data):
        raise ValueError(f"{len(data)} bytes of tensors instead of {offset}")
    return tensors


def _payload_bytes(codec: str, size: int) -> int:
    blocks = math.ceil(size / BLOCK)
    kept = max(1, math.ceil(size / 10))
    of = {"fp32": 4 * size, "bf16": 2 * size, "int8": 68 * blocks, "int4": 36 * blocks}
    return of.get(codec, 8 * kept)


def _decode(codec: str, data: bytes, size: int) -> Floats:
    if codec == "fp32":
        return np.frombuffer(data, "<f4").astype(np.float32)
    if codec == "bf16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float32)
    if codec == "topk":
        kept = len(data) // 8
        dense = np.zeros(size, np.float32)
        dense[np.frombuffer(data, "<u4", kept)] = np.frombuffer(data[4 * kept :], "<f4")
        return dense
    blocks = math.ceil(size / BLOCK)
    scales = np.repeat(np.frombuffer(data, "<f4", blocks), BLOCK)
    packed = np.frombuffer(data[4 * blocks :], np.uint8)
    if codec == "int8":
        values = packed.view(np.int8).astype(np.float32)
    else:
        nibbles = np.stack([packed & 15, packed >> 4], axis=1).ravel()
        values = nibbles.astype(np.float32) - np.float32(8)
    return np.asarray((values * scales)[:size], np.float32)


def add(tensors: Tensors, steps: Sequence[tuple[float, Tensors]]) -> Tensors:
    """Return θ + Σ kᵢ Δᵢ: in float32, one update after the other."""
    result = {name: tensor.copy() for name, tensor in tensors.items()}
    for coefficient, delta in steps:
        for name in result:
            result[name] += np.float32(coefficient) * delta[name]
    return result


def as_broadcast(codec: str, tensors: Tensors) -> tuple[Tensors, bytes]:
    """Return the tensors as their codec leaves them (fp32 or bf16), and their payload."""
    parts = {}
    for name in sorted(tensors):
        bits = np.ascontiguousarray(tensors[name], "<f4").view("<u4")
        if codec == "bf16":  # to the nearest, ties to even
            bits = (bits + (((bits >> 16) & 1) + 0x7FFF).astype("<u4")) & np.uint32(0xFFFF0000)
        parts[name] = bits
    tops = [b if codec == "fp32" else (b >> 16).astype("<u2") for b in parts.values()]
    payload = b"".join(top.tobytes() for top in tops)
    return {name: bits.view("<f4") for name, bits in parts.items()}, payload


def listing(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the canonical form of a layout."""
    lines = (f"{name} {'x'.join(map(str, tensors[name].shape))}\n" for name in sorted(tensors))
    return "".join(lines).encode()


def broadcast_digest(version: int, codec: str, tensors: Tensors) -> str:
    """Return the SHA-256 of a version's broadcast frame in schema 2."""
    names = listing(tensors)
    fields = {"version": version, "codec": codec, "layout": sha256(names)}
    header = msgpack.packb(["Adapter", {**fields, "layout_bytes": len(names)}])
    prefix = b"FCCL" + struct.pack("<BI", 2, len(header))
    return sha256(prefix + header + names + as_broadcast(codec, tensors)[1])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def norm(tensors: Tensors) -> float:
    return math.sqrt(sum(float((t.astype(np.float64) ** 2).sum()) for t in tensors.values()))


# Weights


def client_weights(
    config: Config, stats: Mapping[str, Mapping[str, Any]], measures: Mapping[str, float]
) -> dict[str, float]:
    """Return wᵢ of some clients, from their newest statistics and measures; the sum is 1."""
    scores = _scores(config, stats, measures)
    raw, t = config["score_scale"] == "raw", config["temperature"]
    exponents = {c: (s if raw else math.log(s)) / t for c, s in scores.items()}
    top = max(exponents.values())
    powers = {c: math.exp(e - top) for c, e in exponents.items()}
    weights = {c: p / math.fsum(powers.values()) for c, p in powers.items()}
    if raw:
        return weights
    k, floor = len(weights), config["floor"]
    return _capped({c: (1 - floor) * w + floor / k for c, w in weights.items()}, config["cap"] / k)


def _scores(
    config: Config, stats: Mapping[str, Mapping[str, Any]], measures: Mapping[str, float]
) -> dict[str, float]:
    mode, source = config["contribution_mode"], config["contribution_source"]
    rows = {c: max(1, s["num_samples"]) for c, s in stats.items()}
    if mode == "size":
        return {c: float(n) for c, n in rows.items()}
    if source in ("train", "holdout"):
        losses = {c: _loss(s, source) for c, s in stats.items()}
        if config["score_scale"] == "log":
            middle = median(losses.values())
            losses = {c: min(2 * middle, max(middle / 2, x)) for c, x in losses.items()}
        values = {c: 1 / max(x, 1e-6) for c, x in losses.items()}
    else:
        values = _measured(config, list(stats), measures)
    return {c: v if mode == "loss" else rows[c] * v for c, v in values.items()}


def _loss(stats: Mapping[str, Any], source: str) -> float:
    after = stats.get("loss_after")
    return float(stats["avg_loss"] if source == "train" or after is None else after)


def _measured(
    config: Config, clients: Sequence[str], measures: Mapping[str, float]
) -> dict[str, float]:
    known = [measures[c] for c in clients if c in measures]
    if not known:
        return dict.fromkeys(clients, 1.0)
    filled = {c: measures.get(c, median(known)) for c in clients}
    if config["score_scale"] == "raw":
        return filled
    positive = [d for d in filled.values() if d > 0]
    if not positive:
        return dict.fromkeys(clients, 1.0)
    middle = median(positive)
    return {c: min(2 * middle, max(0.05 * middle, d)) for c, d in filled.items()}


def _capped(weights: Mapping[str, float], limit: float) -> dict[str, float]:
    """Return the weights with the excess over the limit spread over the others in proportion."""
    if limit * len(weights) <= 1:
        return dict.fromkeys(weights, 1 / len(weights))
    capped: set[str] = set()
    while True:
        free = {c: w for c, w in weights.items() if c not in capped}
        left, total = 1 - limit * len(capped), math.fsum(free.values())
        result = {c: left * (w / total if total else 1 / len(free)) for c, w in free.items()}
        over = {c for c, w in result.items() if w > limit + 1e-12}
        if not over:
            return {c: limit if c in capped else result[c] for c in weights}
        capped |= over


def clip(config: Config, earlier: Sequence[float], own: float) -> float:
    """Return cᵢ; `earlier` holds the clipped norms of the phase's updates accepted before."""
    recent = earlier[-50:]
    if config["over_norm"] != "clip" or len(recent) < 5 or not median(recent):
        return 1.0
    return min(1.0, config["clip"] * median(recent) / own) if own else 1.0


def bounded(value: float) -> float:
    """Return a value limited to [0.5, 2], as r and the weight of a single client are."""
    return min(2.0, max(0.5, value))
