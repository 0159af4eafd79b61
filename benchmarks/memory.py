"""Memory and speed of a training step by precision, checkpointing and micro-batch.

    python -m benchmarks.memory [--model offline:smollm2-135m | qwen2.5-0.5b] [--objective sft|dpo]
        [--batch N] [--length N] [--steps N] [--runs N] [--modes fp32 bf16 nf4 int8]
        [--micro N ...] [--checkpointing off on] [--threads N] [--json]

Every mode trains in a process of its own on the same random token ids, each example `--length`
tokens long, so that no mode pads. `qwen2.5-0.5b` is a model of that shape with random weights (24
layers of 896, 151,936 tokens). The first step warms up and is not counted. The table has medians
over runs.

`peak` is the highest resident set of the process (`ru_maxrss`), and `above libraries` that without
what Python, torch and transformers take before a model is loaded. `weights` is the size of the
model's parameters and buffers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

MODES = ("fp32", "bf16", "nf4", "int8")
QWEN = "qwen2.5-0.5b"
MIB = 1 << 20
BETA_REFERENCE = (-10.0, -12.0)  # any values: the cost of a step does not depend on them


@dataclass(frozen=True)
class Result:
    """Figures of one process, or medians of several."""

    weights_mib: float
    peak_mib: float
    above_mib: float
    seconds_per_step: float
    tokens_per_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="offline:smollm2-135m")
    parser.add_argument("--objective", choices=("sft", "dpo"), default="sft")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2, help="steps that are counted")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--micro", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--checkpointing", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        mode, micro, checkpointing = arguments.one
        print(json.dumps(asdict(measure(arguments, mode, int(micro), checkpointing == "on"))))
        return
    cases = [
        (mode, micro, checkpointing)
        for mode in arguments.modes
        for checkpointing in arguments.checkpointing
        for micro in arguments.micro
    ]
    results: dict[tuple[str, int, str], list[Result]] = {case: [] for case in cases}
    for _ in range(arguments.runs):
        for case in cases:
            results[case].append(run_in_subprocess(arguments, case))
            print(*case, results[case][-1], file=sys.stderr, flush=True)
    print_table({case: median_result(found) for case, found in results.items()})


def run_in_subprocess(arguments: argparse.Namespace, case: tuple[str, int, str]) -> Result:
    names = ("model", "objective", "batch", "length", "steps", "threads")
    options = [part for name in names for part in (f"--{name}", str(getattr(arguments, name)))]
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "benchmarks.memory"),
            *options,
            *("--one", case[0], str(case[1]), case[2]),
        ],
        env=os.environ | {"OMP_NUM_THREADS": str(arguments.threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-3000:]}")
    return Result(**json.loads(done.stdout.strip().splitlines()[-1]))


def median_result(results: Sequence[Result]) -> Result:
    columns = zip(*(asdict(each).values() for each in results), strict=True)
    return Result(*(median(column) for column in columns))


def print_table(results: dict[tuple[str, int, str], Result]) -> None:
    """Print a table in Markdown."""
    print(
        "| mode | checkpointing | micro-batch | weights MiB | peak MiB | above libraries | s/step"
        " | tokens/s |"
    )
    print("| --- |" + " --- |" * 7)
    for (mode, micro, checkpointing), found in results.items():
        print(
            f"| {mode} | {checkpointing} | {micro} | {found.weights_mib:.0f} |"
            f" {found.peak_mib:.0f} | {found.above_mib:.0f} | {found.seconds_per_step:.2f} |"
            f" {found.tokens_per_s:.0f} |"
        )


def measure(arguments: argparse.Namespace, mode: str, micro: int, checkpointing: bool) -> Result:
    """Train in this process and return the figures."""
    import torch

    from common.protocol.tasks import LocalTraining, LoraSpec
    from learning.models.adapted import load_adapted
    from learning.objectives.registry import make_objective
    from learning.training import loop
    from learning.training.device import detect
    from learning.training.memory import MemorySettings

    compute = detect("cpu")
    torch.set_num_threads(arguments.threads)
    path = model_directory(arguments.model)
    libraries = peak_mib()
    loaded = load_adapted(
        arguments.objective, path, (), compute.device, LoraSpec(r=16), weight_format_of(mode)
    )
    examples = make_examples(arguments)
    ends = [time.perf_counter()]

    def on_step(report: Any) -> bool:
        ends.append(time.perf_counter())
        return True

    loop.train(
        loaded.model,
        make_objective(arguments.objective),
        examples,
        LocalTraining(
            batch_size=arguments.batch,
            lr=1e-4,
            steps=1 + arguments.steps,
            max_length=arguments.length,
        ),
        on_step,
        autocast=compute.autocast,
        memory=MemorySettings(micro, checkpointing),
    )
    parts = [*loaded.model.parameters(), *loaded.model.buffers()]
    seconds = (ends[-1] - ends[1]) / arguments.steps
    tokens = arguments.batch * arguments.length * (2 if arguments.objective == "dpo" else 1)
    peak = peak_mib()
    return Result(
        weights_mib=sum(each.numel() * each.element_size() for each in parts) / MIB,
        peak_mib=peak,
        above_mib=peak - libraries,
        seconds_per_step=seconds,
        tokens_per_s=tokens / seconds,
    )


def weight_format_of(mode: str) -> Any:
    from common.protocol.tasks import ModelPrecision
    from learning.models.precision import weight_format

    precision = {
        "fp32": ModelPrecision(dtype="float32"),
        "bf16": ModelPrecision(dtype="bfloat16"),
        "nf4": ModelPrecision(quantization="nf4"),
        "int8": ModelPrecision(quantization="int8"),
    }
    return weight_format(precision[mode], autocast=False)


def model_directory(name: str) -> Path:
    """Return the directory of a base model, or make the random one."""
    from common.paths import cache_dir
    from learning.models import base

    if name != QWEN:
        return base.resolve(name, None, cache_dir(), lambda text, part: None).path
    folder = cache_dir() / f"random-{QWEN}"
    if not folder.exists():
        make_random(folder)
    return folder


def make_random(folder: Path) -> None:
    """Write a model of the shape of Qwen2.5-0.5B with random weights, and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    partial = folder.with_name(f".{folder.name}")
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(partial)
    AutoTokenizer.from_pretrained(model_directory("offline:smollm2-135m")).save_pretrained(partial)
    partial.rename(folder)


def make_examples(arguments: argparse.Namespace) -> list[Any]:
    """Return random token ids, half of them a prompt."""
    from learning.objectives.dpo import TokenisedPair, with_reference
    from learning.objectives.tokens import make_example

    rng, half = Random("memory"), arguments.length // 2

    def ids() -> list[int]:
        return [rng.randint(1000, 30000) for _ in range(half)]

    count = arguments.batch * (1 + arguments.steps)
    if arguments.objective == "sft":
        return [make_example(ids(), ids(), half) for _ in range(count)]
    pairs = []
    for _ in range(count):
        prompt = ids()
        pairs.append(TokenisedPair(*(make_example(prompt, ids(), half) for _ in range(2))))
    return [with_reference(pair, BETA_REFERENCE) for pair in pairs]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
