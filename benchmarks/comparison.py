"""Comparison of the base, single clients, federation and central training.

    python -m benchmarks.comparison [--config FILE] [--data FILE] [--rows N] [--heldout FILE]
        [--seeds 0 1 2] [--arms central single share] [--rates 0.5 1] [--alone N] [--no-resets]
        [--out FILE] [--answers N]

Every arm starts from the same base and adapter and takes the same *total* number of local steps of
the same batch size; all are evaluated on the same held-out rows, or on those of a file. Only the
first phase of the plan is run, of `sft` or `classification`. For arms other than the federation the
best of some learning rates is chosen, and for central training of two optimizer schedules, by the
result on the held-out rows: an advantage that the federation does not have. Where that takes too
long, `--rates 1 --no-resets` leaves one candidate, and `--alone` the N clients with the most rows.

Each result is written to `--out` as soon as it is known, as a line of JSON. `--rows` takes some
rows of a file, chosen by the seed. `--answers` prints answers of the base, the federation and
central training to held-out rows, side by side.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.federation import Federation
from cli.console import Output
from cli.demo import command
from cli.run import session
from cli.run.local_tasks import LocalTasks
from common.config import loader
from common.config.config import FederationConfig, IncrementalConfig, PhaseConfig
from common.evaluation.metric_info import MAIN_METRIC, METRICS
from common.protocol.fields import RowKind
from common.protocol.tasks import LocalTraining
from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun, read_run
from coordinator.core.tasks import learning_rate
from evaluation.evaluator import HELDOUT, EvaluationRows, Evaluator
from evaluation.prompts import expected_answer, format_question
from learning.data import rows, splits
from learning.data.row_types import Row
from learning.models import lora
from learning.objectives import classification, registry
from learning.training import loop
from learning.training.device import Compute, detect

ARMS = ("central", "single", "share")
RATES = (0.5, 1.0)  # times the federation's learning rate
LIMIT_S = 3600.0  # for the federation of one seed
NEW_TOKENS = 60  # of an answer that is printed

Figures = Mapping[str, float]  # by key of `learning.evaluation.metrics`
Record = Callable[[str, Any], None]  # called with an arm and its result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="rows; default: those of the configuration")
    parser.add_argument("--rows", type=int, help="take so many of them [all]")
    parser.add_argument("--heldout", type=Path, help="rows to evaluate on; default: the run's own")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--alone", type=int, help="single clients to train, the largest [all]")
    parser.add_argument("--no-resets", action="store_true", help="one optimizer schedule only")
    parser.add_argument("--out", type=Path, help="file to which results are appended")
    parser.add_argument("--answers", type=int, default=0)
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seeds:
        result: dict[str, Any] = {}

        def record(arm: str, value: Any, seed: int = seed, result: dict[str, Any] = result) -> None:
            result[arm] = value
            line = json.dumps({"seed": seed, "arm": arm, "result": value})
            print(line, flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")

        with tempfile.TemporaryDirectory() as folder:
            config = configure(arguments, seed, Path(folder))
            compare(config, arguments, record)
        results.append(result)
    print_table(results)


def configure(arguments: argparse.Namespace, seed: int, folder: Path) -> FederationConfig:
    """Return the plan of one seed: the first phase, in a folder, on the chosen rows."""
    data = arguments.data
    if data is not None and arguments.rows:
        lines = data.read_text(encoding="utf-8").splitlines(keepends=True)
        data = folder / f"rows{data.suffix}"
        data.write_text("".join(random.Random(seed).sample(lines, arguments.rows)))
    return first_phase(command.configure(arguments.config, data, folder / "comparison"), seed)


def first_phase(config: FederationConfig, seed: int) -> FederationConfig:
    """Return a plan of the first phase alone, without live samples."""
    table = config.model_dump()
    table["run"]["seed"] = seed
    table["phase"] = table["phase"][:1]
    table["samples"]["prompts"] = 0
    return loader.parse(table, config.run.name)


def compare(config: FederationConfig, arguments: argparse.Namespace, record: Record) -> None:
    """Record the metrics on the held-out rows for all arms of one seed."""
    run, base_path = federate(config)
    updates = read_jsonl(config.run.path / "client_metrics.jsonl")
    steps = sum(update["steps"] for update in updates)
    record("steps", steps)
    record("task_seconds", median(update["train_seconds"] for update in updates))
    trainer = ArmTrainer(run, base_path, arguments)
    record("training rows of the clients", [len(shard) for shard in trainer.shards])
    record("held-out rows", len(trainer.heldout.examples))
    record("base", trainer.measure(trainer.start))
    adapters = {"base": trainer.start, "federation": run.tensors(run.versions[-1].version)}
    record("federation", trainer.measure(adapters["federation"]))
    if "central" in arguments.arms:
        figures, adapters["central"] = trainer.best(
            trainer.pooled(), steps, resets=not arguments.no_resets
        )
        record("central", figures)
    largest = sorted(trainer.shards, key=len, reverse=True)[: arguments.alone]
    for arm, title, count in (
        ("single", "best client, all the steps", steps),
        ("share", "best client, its share of steps", steps // config.data.clients),
    ):
        if arm in arguments.arms:
            alone = [trainer.best(shard, count)[0] for shard in largest]
            record(f"{title}: each of {len(largest)}", alone)
            record(title, min(alone, key=trainer.order))
    if arguments.answers:
        record("answers", trainer.answers(adapters, arguments.answers))


def federate(config: FederationConfig) -> tuple[RecordedRun, Path]:
    """Run the whole federation; return its record, and the directory of its base model."""
    output = Output(plain=True)
    tasks = LocalTasks(output.progress, output.print)
    run = session.open_run(config, "start", tasks, output, on_set_aside=lambda old: None)
    end, base_path = config.phase[0].versions, run.base_path
    begun = time.monotonic()
    with Federation(run, IncrementalConfig(enabled=False), output.print) as federation:
        federation.wait_until(lambda: federation.version() >= end, f"version {end}", LIMIT_S)
    output.print(f"the federation took {time.monotonic() - begun:.0f} s")
    return read_run(config.run.path), base_path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class ArmTrainer:
    """Trains on any rows from the run's initial adapter, and measures on the held-out rows."""

    def __init__(self, run: RecordedRun, base_path: Path, arguments: argparse.Namespace) -> None:
        self._config, self._phase = run.config, run.config.phase[0]
        self._rates: Sequence[float] = arguments.rates
        self._compute: Compute = detect()
        self._evaluator = Evaluator(run, base_path, self._compute)
        self._objective = registry.make_objective(
            self._phase.objective, None, run.labels, prompt=run.prompt
        )
        self._classes = len(run.labels)
        self._kind: RowKind = self._phase.kind
        # As for a worker, whose dropout is drawn from the task's seed.
        self.start: Tensors = run.tensors(0)
        held: Sequence[Row] = (
            rows.load(self._kind, str(arguments.heldout), on_message=print).rows
            if arguments.heldout
            else self._evaluator.heldout_rows(self._kind, splits.MAX_HELDOUT)
        )
        self.heldout = self._encoded(held)
        self.shards = [
            self._encoded(splits.split_rows(rows.read(self._kind, shard.path).rows).train).examples
            for shard in self._evaluator.prepared.shards
            if shard.kind == self._kind
        ]

    def pooled(self) -> Sequence[Any]:
        """Return the training examples of all clients together."""
        return [example for shard in self.shards for example in shard]

    def order(self, figures: Figures) -> float:
        """Return a number that is smaller for better figures."""
        metric = MAIN_METRIC[self._kind]
        return -figures[metric.key] if metric.higher else figures[metric.key]

    def best(
        self, examples: Sequence[Any], steps: int, *, resets: bool = False
    ) -> tuple[Figures, Tensors]:
        """Return the best figures over learning rates, with one optimizer throughout.

        With `resets`, the federation's own procedure is a candidate, too.
        """
        length = self._config.model.max_length
        schedules = [
            [constant_rate(self._phase, steps, rate * self._phase.lr, length)]
            for rate in self._rates
        ]
        if resets:
            schedules += [
                list(federated_schedule(self._phase, steps, rate, length)) for rate in self._rates
            ]
        adapters = [self._trained(examples, schedule) for schedule in schedules]
        found = [(self.measure(adapter), adapter) for adapter in adapters]
        return min(found, key=lambda each: self.order(each[0]))

    def measure(self, adapter: Tensors) -> Figures:
        """Return the metrics of an adapter on the held-out rows."""
        self._evaluator.load_tensors(adapter)
        scores = self._evaluator.score(self.heldout)
        values = self.heldout.metrics([HELDOUT], scores, scores).values
        return {each.key: values[each.key] for each in METRICS[self._kind]}

    def answers(self, adapters: Mapping[str, Tensors], count: int) -> list[dict[str, str]]:
        """Return the answers of some adapters to the same held-out rows."""
        asked = [self.heldout.rows[i] for i in self.heldout.sample_indexes(count)]
        found: list[dict[str, str]] = [describe(row) for row in asked]
        for name, adapter in adapters.items():
            self._evaluator.load_tensors(adapter)
            for each, text in zip(found, self._evaluator.generate(asked, NEW_TOKENS), strict=True):
                each[name] = text
        return found

    def _trained(self, examples: Sequence[Any], schedule: Sequence[LocalTraining]) -> Tensors:
        if self._kind == "cls":  # as a client would
            strength = self._phase.logit_adjustment
            examples = classification.with_logit_adjustment(examples, self._classes, strength)
        model, autocast = self._evaluator.model, self._compute.autocast  # as workers do
        lora.write_adapter(model, self.start)
        for seed, training in enumerate(schedule):
            loop.train(model, self._objective, examples, training, seed=seed, autocast=autocast)
        return lora.read_adapter(model)

    def _encoded(self, selected: Sequence[Row]) -> EvaluationRows:
        return self._evaluator.encode(self._kind, 0, [(HELDOUT, row) for row in selected])


def describe(row: Row) -> dict[str, str]:
    return {"question": format_question(row), "expected": expected_answer(row)}


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


def print_table(results: Sequence[Mapping[str, Any]]) -> None:
    """Print medians over the seeds, and the federation's share of central training's gain."""
    first = results[0]
    print(f"\nmedians of {len(results)} seeds, {first['steps']} local steps in every arm\n")
    arms = [key for key, value in first.items() if isinstance(value, dict)]
    metrics = list(first["base"])
    print(f"| arm | {' | '.join(metrics)} |\n| --- |{' --- |' * len(metrics)}")
    for arm in arms:
        cells = (f"{median(each[arm][key] for each in results):.3f}" for key in metrics)
        print(f"| {arm} | {' | '.join(cells)} |")
    print(f"\nseconds of a task, median: {median(r['task_seconds'] for r in results):.1f}")
    if "central" not in first:
        return
    loss = metrics[0]
    kept = [
        (r["base"][loss] - r["federation"][loss]) / (r["base"][loss] - r["central"][loss])
        for r in results
    ]
    print(f"share of central training's improvement that the federation keeps: {median(kept):.0%}")


if __name__ == "__main__":
    main()
