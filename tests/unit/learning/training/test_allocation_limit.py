"""A process that may not allocate enough memory for a batch trains it in parts."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from pathlib import Path

import torch
from common.protocol.tasks import LocalTraining, LoraSpec
from learning.models import lora
from learning.objectives.registry import make_objective
from learning.objectives.tokens import make_example
from learning.training import loop
from learning.training.memory import AUTOMATIC, MemorySettings
from tests.support.tiny_model import tiny_model

BATCH, ALLOWED = 64, 400 << 20  # logits and their gradients take 55 MiB for each example

torch.set_num_threads(1)
model = lora.attach(tiny_model(vocabulary=40_000), LoraSpec(r=4, dropout=0.0), seed=0)
examples = [make_example([1] * 4, list(range(1, 121)), 9) for _ in range(BATCH)]


def train(batch_size, memory):
    training = LocalTraining(batch_size=batch_size, lr=1e-4, steps=1, max_length=128)
    return loop.train(model, make_objective("sft"), examples, training, memory=memory)


train(1, MemorySettings(1))  # libraries take what they keep
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + ALLOWED,) * 2)
result = train(BATCH, AUTOMATIC)
print(result.steps, result.samples, result.memory.micro_batch)
"""


@pytest.mark.slow
def test_a_batch_beyond_the_limit_of_the_process_is_trained_in_parts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    steps, samples, micro_batch = map(int, done.stdout.split())
    assert (steps, samples) == (1, 64)
    assert 1 <= micro_batch < 64
