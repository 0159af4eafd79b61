"""Tests of error feedback: what a lossy codec drops arrives later, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.protocol import codec
from common.protocol.fields import CodecName
from common.protocol.tensors import Tensors
from worker import error_feedback
from worker.error_feedback import Residual


def send(name: CodecName, delta: Tensors, current: Path, phase: int = 0) -> Tensors:
    """Return what the coordinator decodes; the waiting residual is promoted, as by the spool."""
    residual = Residual(current, current.with_name("waiting"), phase)
    sent = codec.decode(name, *error_feedback.encode(name, delta, residual))
    residual.waiting.replace(current)
    return sent


def test_topk_sends_the_largest_tenth_and_keeps_the_rest(tmp_path: Path) -> None:
    residual = tmp_path / "residual"
    delta = {"w": np.array([5, 1, 2, 0, 0, 0, 0, 0, 0, 0], np.float32)}
    assert send("topk", delta, residual)["w"].tolist() == [5, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert load_file(residual)["w"].tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 0, 0]


def test_what_was_kept_is_added_to_the_next_delta(tmp_path: Path) -> None:
    residual = tmp_path / "residual"
    delta = {"w": np.array([5, 1, 2, 0, 0, 0, 0, 0, 0, 0], np.float32)}
    send("topk", delta, residual)
    # 0 + 1 + 2 → total [1, 2, 4, …]: the 4 goes out.
    delta = {"w": np.array([1, 1, 2, 0, 0, 0, 0, 0, 0, 0], np.float32)}
    assert send("topk", delta, residual)["w"].tolist() == [0, 0, 4, 0, 0, 0, 0, 0, 0, 0]
    assert load_file(residual)["w"].tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["topk", "int4"])
def test_the_sum_of_what_is_sent_converges_to_the_sum_of_the_deltas(
    name: CodecName, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    mean = random.normal(size=200).astype(np.float32)
    wanted, sent, plain = np.zeros(200), np.zeros(200), np.zeros(200)
    errors = []
    for _ in range(200):
        delta = {"w": mean + random.normal(scale=0.1, size=200).astype(np.float32)}
        wanted += delta["w"]
        sent += send(name, delta, tmp_path / "residual")["w"]
        plain += codec.decode(name, *codec.encode(name, delta))["w"]
        errors.append(np.linalg.norm(sent - wanted) / np.linalg.norm(wanted))
    assert errors[-1] < 0.05
    assert errors[-1] < errors[9] / 5  # the error stays bounded while the sum grows
    assert np.linalg.norm(sent - wanted) < np.linalg.norm(plain - wanted)


def test_the_error_is_exactly_the_residual(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    wanted, sent = np.zeros(50, np.float32), np.zeros(50, np.float32)
    for _ in range(5):
        delta = {"w": random.normal(size=50).astype(np.float32)}
        wanted += delta["w"]
        sent += send("topk", delta, tmp_path / "residual")["w"]
    np.testing.assert_allclose(load_file(tmp_path / "residual")["w"], wanted - sent, atol=1e-5)


@pytest.mark.parametrize("name", ["fp32", "bf16", "int8"])
def test_codecs_that_need_no_feedback_keep_nothing(name: CodecName, tmp_path: Path) -> None:
    residual = Residual(tmp_path / "residual", tmp_path / "waiting", 0)
    error_feedback.encode(name, {"w": np.ones(10, np.float32)}, residual)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_residual_costs_only_what_it_held(tmp_path: Path) -> None:
    residual = tmp_path / "residual"
    residual.write_bytes(b"\x08\x00")
    delta = {"w": np.array([0, 3, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)}
    assert send("topk", delta, residual)["w"].tolist() == [0, 3, 0, 0, 0, 0, 0, 0, 0, 0]


def test_a_delta_that_is_not_finite_changes_no_residual(tmp_path: Path) -> None:
    residual = Residual(tmp_path / "residual", tmp_path / "waiting", 0)
    send("topk", {"w": np.arange(10, dtype=np.float32)}, residual.current)
    before = residual.current.read_bytes()
    with pytest.raises(ValueError, match="not finite"):
        error_feedback.encode("topk", {"w": np.full(10, np.nan, np.float32)}, residual)
    assert residual.current.read_bytes() == before
    assert not residual.waiting.exists()


def test_what_one_phase_left_unsent_is_not_sent_in_the_next(tmp_path: Path) -> None:
    delta = {"w": np.array([5, 1, 2, 0, 0, 0, 0, 0, 0, 0], np.float32)}
    residual = tmp_path / "residual"
    send("topk", delta, residual, phase=0)
    nothing = {"w": np.zeros(10, np.float32)}
    assert not send("topk", nothing, residual, phase=1)["w"].any()
