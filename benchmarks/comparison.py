"""Does federation work? Base, single clients, federation and central training, side by side.

    python -m benchmarks.comparison [--data FILE] [--seeds 0 1 2] [--config FILE]

Every arm starts from the same base and adapter and takes the same *total* number of local steps of
the same batch size; all are evaluated on the same held-out rows. The federation runs through
`fccl demo`. The other arms may choose the better of two learning rates, and central training of two
optimizer schedules, by held-out loss: an advantage that the federation does not have.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from cli import demo
from cli.console import Output
from common import config as configuration
from common.config import FederationConfig, PhaseConfig
from common.paths import cache_dir
from common.tensors import Tensors
from coordinator.tasks import learning_rate
from learning import base, instructions, loading, loop, lora, shards, tokens
from learning.device import Compute, detect
from learning.evaluation import Evaluation, evaluate
from learning.sft import sft
from learning.tokens import Example

RATES = (0.5, 1.0)  # times the federation's learning rate


def main() -> None:
    """Run all arms for every seed and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Alpaca-form file; synthetic without")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            config = demo.configure(arguments.config, arguments.data, Path(folder) / "comparison")
            table = config.model_dump()
            table["run"]["seed"] = seed
            results.append(compare(configuration.parse(table, "comparison")))
        print(json.dumps({"seed": seed, **results[-1]}), flush=True)
    show(results)


def compare(config: FederationConfig) -> dict[str, Any]:
    """All arms of one seed: nats per token and bits per byte on the held-out rows."""
    demo.serve(config, "start", Output(plain=True))
    report = json.loads((config.run.path / "report" / "report.json").read_text())
    steps = sum(u["steps"] for version in report["versions"] for u in version["updates"])
    bench = Bench(config)
    result: dict[str, Any] = {
        "steps": steps,
        "unigram": [report["unigram_nats_per_token"], None],
        "base": bench.figures(bench.evaluate(bench.start)),
        "federation": [report["federated"]["nats_per_token"], report["federated"]["bits_per_byte"]],
    }
    result["central"] = bench.best(bench.pooled(), steps, resets=True)
    share = steps // config.data.clients
    alone = [bench.best(shard, steps) for shard in bench.shards]
    result["best client, all the steps"] = min(alone)
    result["best client, its share of steps"] = min(
        bench.best(shard, share) for shard in bench.shards
    )
    return result


class Bench:
    """Trains on any rows from the run's own start."""

    def __init__(self, config: FederationConfig) -> None:
        self._config, self._phase = config, config.phase[0]
        self._compute: Compute = detect()
        prepared = shards.load(config.run.path / "clients")
        found = base.resolve(
            config.model.name, config.model.revision, cache_dir(), lambda message, fraction: None
        )
        loaded = loading.load(found.path, self._compute.device)
        self._tokenizer = loaded.tokenizer
        self.model = lora.attach(loaded.model, config.model.lora, config.run.seed)
        self.start: Tensors = lora.read_adapter(self.model)
        self.heldout = self._encode(prepared.heldout)
        self.shards = [
            self._examples(shards.split(instructions.read(shard.path).rows)[0])
            for shard in prepared.clients
        ]

    def pooled(self) -> Sequence[Example]:
        """The training rows of all clients together."""
        return [example for shard in self.shards for example in shard]

    def best(self, examples: Sequence[Example], steps: int, *, resets: bool = False) -> list[float]:
        """The best held-out figures over learning rates, one optimizer throughout.

        With `resets`, the federation's own procedure is tried, too.
        """
        tried = [[local(self._phase, steps, rate * self._phase.lr, 0)] for rate in RATES]
        if resets:
            tried += [list(fresh(self._phase, steps, rate)) for rate in RATES]
        return min(self.figures(self._trained(examples, settings)) for settings in tried)

    def evaluate(self, adapter: Tensors) -> Evaluation:
        """An adapter on the held-out rows."""
        lora.write_adapter(self.model, adapter)
        return evaluate(self.model, self.heldout, 32, autocast=self._compute.autocast)

    def figures(self, result: Evaluation) -> list[float]:
        """Nats per token and bits per byte."""
        return [result.nats_per_token, result.bits_per_byte]

    def _trained(
        self, examples: Sequence[Example], settings: Sequence[loop.LocalTraining]
    ) -> Evaluation:
        lora.write_adapter(self.model, self.start)
        for plain in settings:
            each = replace(plain, autocast=self._compute.autocast)  # as workers do
            loop.train(self.model, sft, examples, each)
        return self.evaluate(lora.read_adapter(self.model))

    def _encode(self, path: Path) -> Sequence[Example]:
        return self._examples(instructions.read(path).rows)

    def _examples(self, rows: Sequence[instructions.Instruction]) -> Sequence[Example]:
        return tokens.encode(self._tokenizer, rows, self._config.model.max_length).examples


def fresh(phase: PhaseConfig, steps: int, rate: float) -> Iterator[loop.LocalTraining]:
    """The federation's own procedure: a fresh optimizer for each task, cosine over versions."""
    tasks = max(1, steps // phase.local_steps)
    for task in range(tasks):
        done = task * phase.versions // tasks
        yield local(phase, phase.local_steps, rate * learning_rate(phase, done), task)


def local(phase: PhaseConfig, steps: int, lr: float, seed: int) -> loop.LocalTraining:
    """One stretch of training at a constant rate."""
    return loop.LocalTraining(batch_size=phase.batch_size, lr=lr, steps=steps, seed=seed)


def show(results: Sequence[dict[str, Any]]) -> None:
    """Medians over the seeds, and what they mean."""
    print(f"\nmedians of {len(results)} seeds, {results[0]['steps']} local steps in every arm\n")
    print("| arm | nats per token | bits per byte |\n| --- | --- | --- |")
    for arm in [key for key in results[0] if key != "steps"]:
        nats, bits = (
            median(r[arm][i] for r in results) if results[0][arm][i] is not None else None
            for i in (0, 1)
        )
        print(f"| {arm} | {nats:.3f} | {'' if bits is None else f'{bits:.3f}'} |")
    kept = [(r["base"][0] - r["federation"][0]) / (r["base"][0] - r["central"][0]) for r in results]
    print(
        f"\nshare of central training's improvement that the federation keeps: {median(kept):.0%}"
    )


if __name__ == "__main__":
    main()
