"""Comparison of the base, single clients, federation and central training.

    python -m benchmarks.comparison [--data FILE] [--heldout FILE] [--seeds 0 1 2]
        [--config FILE] [--arms central single]

Every arm starts from the same base and adapter and takes the same *total* number of local steps of
the same batch size; all are evaluated on the same held-out rows, or on those of a file. The plan
has one phase, of `sft` or `classification`. The federation runs through `fccl demo`. For the other
arms the better of two learning rates is chosen, and for central training of two optimizer
schedules, by the result on the held-out rows: an advantage that the federation does not have.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from safetensors.numpy import load_file

from cli.console import Output
from cli.demo import command
from common.config import loader
from common.config.config import FederationConfig, PhaseConfig
from common.paths import cache_dir
from common.protocol.tasks import LocalTraining
from common.protocol.tensors import Tensors
from coordinator.core.tasks import learning_rate
from learning.data import prepared_data, rows, splits
from learning.models import base, lora, objective_model
from learning.objectives import classification, registry
from learning.training import loop
from learning.training.device import Compute, detect

ARMS = ("central", "single")
RATES = (0.5, 1.0)  # times the federation's learning rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="rows; default: those of the configuration")
    parser.add_argument("--heldout", type=Path, help="rows to evaluate on; default: the run's own")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS)
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            config = command.configure(
                arguments.config, arguments.data, Path(folder) / "comparison"
            )
            table = config.model_dump()
            table["run"]["seed"] = seed
            config = loader.parse(table, "comparison")
            results.append(compare(config, arguments.heldout, arguments.arms))
        print(json.dumps({"seed": seed, **results[-1]}), flush=True)
    print_table(results)


def compare(config: FederationConfig, heldout: Path | None, arms: Sequence[str]) -> dict[str, Any]:
    """Return loss and accuracy on the held-out rows for all arms of one seed."""
    command.serve(config, "start", Output(plain=True))
    updates = read_jsonl(config.run.path / "client_metrics.jsonl")
    steps = sum(update["steps"] for update in updates)
    seconds = [update["train_seconds"] for update in updates]
    final = read_jsonl(config.run.path / "progress.jsonl")[-1]["version"]
    trainer = ArmTrainer(config, heldout)
    last = config.run.path / "versions" / f"{final:06d}"
    result: dict[str, Any] = {
        "steps": steps,
        "task_seconds": median(seconds),
        "base": trainer.measure(trainer.start),
        "federation": trainer.measure(read_weights(last)),
    }
    if "central" in arms:
        result["central"] = trainer.best(trainer.pooled(), steps, resets=True)
    if "single" not in arms:
        return result
    share = steps // config.data.clients
    alone = [trainer.best(shard, steps) for shard in trainer.shards]
    result["best client, all the steps"] = min(alone)
    result["best client, its share of steps"] = min(
        trainer.best(shard, share) for shard in trainer.shards
    )
    return result


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def read_weights(version: Path) -> Tensors:
    """Return the tensors of a version's directory: those of an adapter, or all."""
    (file,) = version.glob("*.safetensors")
    return dict(load_file(file))


class ArmTrainer:
    """Trains on any rows from the run's initial adapter, and measures on the held-out rows."""

    def __init__(self, config: FederationConfig, heldout: Path | None) -> None:
        self._config, self._phase = config, config.phase[0]
        self._compute: Compute = detect()
        run_data = json.loads((config.run.path / "clients" / "data.json").read_text())
        prepared = prepared_data.load(config.run.path / "clients")
        name, labels = self._phase.objective, tuple(run_data["labels"])
        base_model = base.resolve(
            config.model.name, config.model.revision, cache_dir(), lambda message, fraction: None
        )
        loaded = objective_model.load_for_objective(
            name, base_model.path, labels, self._compute.device
        )
        self._objective = registry.make_objective(name, None, labels)
        self._classes = len(labels)
        self._tokenizer = loaded.tokenizer
        self.model = lora.attach(loaded.model, config.model.lora, config.run.seed)
        self.start: Tensors = lora.read_adapter(self.model)
        self._kind = self._phase.kind
        self.heldout = self._examples(
            rows.load(self._kind, str(heldout), on_message=print).rows
            if heldout
            else rows.read(self._kind, prepared.heldout[self._kind]).rows
        )
        self.shards = [
            self._examples(splits.split_rows(rows.read(self._kind, shard.path).rows).train)
            for shard in prepared.shards
        ]

    def pooled(self) -> Sequence[Any]:
        """Return the training examples of all clients together."""
        return [example for shard in self.shards for example in shard]

    def best(self, examples: Sequence[Any], steps: int, *, resets: bool = False) -> list[float]:
        """Return the best figures over learning rates, with one optimizer throughout.

        With `resets`, the federation's own procedure is a candidate, too.
        """
        length = self._config.model.max_length
        schedules = [
            [constant_rate(self._phase, steps, rate * self._phase.lr, length)] for rate in RATES
        ]
        if resets:
            schedules += [
                list(federated_schedule(self._phase, steps, rate, length)) for rate in RATES
            ]
        figures = [self.measure(self._trained(examples, schedule)) for schedule in schedules]
        # By accuracy, where there is one: an advantage of central training.
        return min(figures, key=lambda each: (-each[1], each[0]))

    def measure(self, adapter: Tensors) -> list[float]:
        """Return loss and accuracy (0 where there is none) of an adapter on the held-out rows."""
        lora.write_adapter(self.model, adapter)
        result = self._objective.measure(self.model, self.heldout, autocast=self._compute.autocast)
        return [result.loss, result.accuracy or 0.0]

    def _trained(self, examples: Sequence[Any], schedule: Sequence[LocalTraining]) -> Tensors:
        if self._kind == "cls":  # as a client would
            strength = self._phase.logit_adjustment
            examples = classification.with_logit_adjustment(examples, self._classes, strength)
        lora.write_adapter(self.model, self.start)
        autocast = self._compute.autocast  # as workers do
        for seed, training in enumerate(schedule):
            loop.train(
                self.model, self._objective, examples, training, seed=seed, autocast=autocast
            )
        return lora.read_adapter(self.model)

    def _examples(self, selected: Sequence[Any]) -> Sequence[Any]:
        length = self._config.model.max_length
        return self._objective.encode(self._tokenizer, selected, length).examples


def federated_schedule(
    phase: PhaseConfig, steps: int, rate: float, length: int
) -> Iterator[LocalTraining]:
    """Yield the federation's own procedure: a fresh optimizer per task, cosine over versions."""
    tasks = max(1, steps // phase.local_steps)
    for task in range(tasks):
        done = task * phase.versions // tasks
        yield constant_rate(phase, phase.local_steps, rate * learning_rate(phase, done), length)


def constant_rate(phase: PhaseConfig, steps: int, lr: float, length: int) -> LocalTraining:
    return LocalTraining(batch_size=phase.batch_size, lr=lr, steps=steps, max_length=length)


def print_table(results: Sequence[dict[str, Any]]) -> None:
    """Print medians over the seeds, and the federation's share of central training's gain."""
    print(f"\nmedians of {len(results)} seeds, {results[0]['steps']} local steps in every arm\n")
    print("| arm | loss, nats | accuracy |\n| --- | --- | --- |")
    for arm in [key for key, value in results[0].items() if isinstance(value, list)]:
        loss, accuracy = (median(r[arm][i] for r in results) for i in (0, 1))
        print(f"| {arm} | {loss:.3f} | {f'{accuracy:.1%}' if accuracy else ''} |")
    print(f"\nseconds of a task, median: {median(r['task_seconds'] for r in results):.1f}")
    if "central" not in results[0]:
        return
    kept = [(r["base"][0] - r["federation"][0]) / (r["base"][0] - r["central"][0]) for r in results]
    print(f"share of central training's improvement that the federation keeps: {median(kept):.0%}")


if __name__ == "__main__":
    main()
