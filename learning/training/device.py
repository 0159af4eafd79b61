"""Device, threads and precision for training on this machine.

Detected once when a worker starts, and passed down; cores are shared anew before every task, since
workers come and go. bfloat16 is *measured*, not assumed from the processor's name: with matrix
units it halves the time of a step, without them (and in emulation) it can double it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import ConfigError
from learning.training.compilation import check_compiler

_WIDTH = 512  # hidden size of the trial layer, as of a small model
_ROWS = 1024  # tokens of its batch: 16 short instructions
_TRIALS = 5
_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**20
_MIN_SPEEDUP = 1.2  # bfloat16 must be this much faster, since it is less exact


@dataclass(frozen=True)
class Compute:
    """Result of `detect`."""

    device: torch.device  # of the models
    threads: int  # for the CPU; all processes that train here share them
    autocast: bool  # whether training runs under bfloat16 autocast
    compiled: bool = False  # only on request: the first task takes a minute more


def detect(name: str = "auto", *, compiled: bool = False) -> Compute:
    """Detect the device and whether bfloat16 is faster, and give this process all cores.

    Args:
        name: `auto` (CUDA where there is one, otherwise the CPU), `cpu`, `cuda` or `cuda:1`.
        compiled: Whether models are to be compiled.

    Raises:
        ConfigError: The named device is missing, or the compiler.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise ConfigError(
            f"device {name} cannot be used: {reason}", "set it to auto or cpu"
        ) from None
    if compiled:
        check_compiler(device.type)
    torch.set_num_threads(available_cores())
    return Compute(device, available_cores(), bf16_speedup(device) >= _MIN_SPEEDUP, compiled)


def share_threads(compute: Compute, workers: int) -> int:
    """Take this process's part of the threads, and return how many that is.

    Threads of several processes on one core wait for each other at every matrix product, which
    slows a small model down many times over. Called by the thread that trains: some of torch's
    settings hold for the calling thread only. `workers` counts this process, too.
    """
    threads = max(1, compute.threads // max(1, workers))
    torch.set_num_threads(threads)
    return threads


def available_cores() -> int:
    """Return the cores that this process may use; in a container, fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(len(os.sched_getaffinity(0)), cgroup_cores(_CGROUPS)))
    return os.cpu_count() or 1


def cgroup_cores(root: Path) -> int:
    """Return the number of whole cores within a container's limit; very many without a limit.

    Such a limit (`docker run --cpus 2`) leaves every core visible: one thread for each of them
    would spend most of its time suspended. `root` holds control groups of version 2 or 1.
    """
    try:
        if (both := root / "cpu.max").exists():
            allowed, period = both.read_text().split()
        else:
            allowed, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        cores = int(allowed) // int(period)
    except (OSError, ValueError):  # "max" is no number
        return _NO_LIMIT
    return _NO_LIMIT if int(allowed) < 0 else cores


def bf16_speedup(device: torch.device) -> float:
    """Return how many times faster a linear layer's forward and backward pass is under autocast.

    Measured with one thread and its processor time. With more, threads that wait for a core on a
    busy machine decide the outcome, which was then between 0.8 and 49 for a true value of 4.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trials = [(_seconds(device, False), _seconds(device, True)) for _ in range(_TRIALS)]
    finally:
        torch.set_num_threads(threads)
    plain, half = zip(
        *trials, strict=True
    )  # the minimum: the first trial warms up, others are disturbed
    return float(min(plain) / min(half))


def _seconds(device: torch.device, autocast: bool) -> float:
    layer = torch.nn.Linear(_WIDTH, _WIDTH, device=device)
    x = torch.ones(_ROWS, _WIDTH, device=device, requires_grad=True)
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    start = clock()
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        layer(x).sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start
