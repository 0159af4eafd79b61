"""Preference optimisation of a real model: central training beside the federation.

    python -m benchmarks.preferences --data FILE [--config FILE] [--preference given|concise]
        [--objective dpo|kto] [--arms central federation] [--pairs N] [--heldout N] [--steps N]
        [--lr X] [--length N] [--seeds 0 1 2] [--out FILE]

A seed chooses pairs of the file, of which some are held out. `given` takes pairs as they are.
`concise` makes them of instructions: the answer of the file is chosen, and the same answer followed
by sentences from answers to other instructions is rejected. `kto` learns from the same pairs
without their pairing: each answer is a row of its own, rated good or bad, and a batch has as many
answers as a batch of `dpo`.

Both arms start from the same adapter and take the same number of local steps of the same batch
size at the same learning rate. Central training is measured several times on its way, which gives a
learning curve. All figures are of the held-out pairs: the share of pairs whose chosen answer has
the higher reward, with Wilson's 95 % interval, and the mean difference of both rewards, with 1.96
standard errors.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.comparison import federate, first_phase, read_jsonl
from cli.demo import command
from common.config import loader
from common.config.config import FederationConfig
from common.protocol.tasks import LocalTraining
from common.run_directory.recorded_run import RecordedRun
from evaluation.evaluator import HELDOUT, Evaluator
from learning.data import rows, splits
from learning.data.row_types import Instruction, PreferencePair
from learning.evaluation.metrics import Z, wilson
from learning.models import lora
from learning.objectives import dpo, kto, registry
from learning.training import loop
from learning.training.device import detect

CONFIG = Path("configs/smollm2.toml")
BATCH = 4  # pairs
LOCAL_STEPS = 5
MEASURED = 2  # points of the learning curve after the start
WORDS = (4, 25)  # of a concise answer
SENTENCES = 2  # by which a rambling answer is longer

Record = Callable[..., None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--preference", choices=("given", "concise"), default="given")
    parser.add_argument("--objective", choices=("dpo", "kto"), default="dpo")
    parser.add_argument("--arms", nargs="+", default=["central", "federation"])
    parser.add_argument("--pairs", type=int, default=300, help="with those held out")
    parser.add_argument("--heldout", type=int, default=75)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--length", type=int, default=384)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="file to which results are appended")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments)
    for seed in arguments.seeds:

        def record(arm: str, seed: int = seed, **figures: Any) -> None:
            settings = {name: getattr(arguments, name) for name in ("preference", "objective")}
            settings |= {"pairs": arguments.pairs - arguments.heldout, "lr": arguments.lr}
            line = json.dumps({**settings, "seed": seed, "arm": arm, **figures})
            print(line, flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")

        with tempfile.TemporaryDirectory() as folder:
            Comparison(arguments, seed, pairs, Path(folder)).run(record)


# Pairs


def read_pairs(arguments: argparse.Namespace) -> list[PreferencePair]:
    if arguments.preference == "given":
        return list(rows.load("va", str(arguments.data), on_message=print).rows)
    return concise_pairs(rows.load("sft", str(arguments.data), on_message=print).rows)


def concise_pairs(instructions: Sequence[Any]) -> list[PreferencePair]:
    """Return pairs of an answer and the same answer followed by what does not belong to it."""
    rng = random.Random("rambling")
    low, high = WORDS
    usable = [
        row
        for row in instructions
        if isinstance(row, Instruction) and low <= len(row.output.split()) <= high
    ]
    sentences = [
        text
        for row in usable
        for text in re.split(r"(?<=[.!?])\s+", row.output.strip())
        if text.endswith(".") and len(text.split()) >= low
    ]
    pairs = []
    for row in usable:
        answer = row.output.strip()
        more = rng.sample(sentences, SENTENCES)
        prompt = f"{row.instruction}\n\n{row.input}" if row.input else row.instruction
        pairs.append(PreferencePair(prompt, answer, " ".join([answer, *more])))
    return pairs


def write_rows(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def rated(pairs: Sequence[PreferencePair], seed: int) -> list[dict[str, Any]]:
    """Return both answers of each pair as rows of their own, in random order."""
    records = [
        {"prompt": pair.prompt, "completion": text, "label": good}
        for pair in pairs
        for text, good in ((pair.chosen, True), (pair.rejected, False))
    ]
    random.Random(seed).shuffle(records)
    return records


def paired(pairs: Sequence[PreferencePair]) -> list[dict[str, Any]]:
    return [
        {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs
    ]


# Arms


class Comparison:
    """Arms of one seed."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        seed: int,
        pairs: Sequence[PreferencePair],
        folder: Path,
    ) -> None:
        self._arguments, self._seed, self._folder = arguments, seed, folder
        self._compute = detect()
        self._pairs = pairs

    def run(self, record: Record) -> None:
        """Record the figures of all arms."""
        held, train = self._choose_pairs()
        file = self._folder / "train.jsonl"
        dpo_run = self._arguments.objective == "dpo"
        write_rows(file, paired(train) if dpo_run else rated(train, self._seed))
        config = self._configure(file)
        started = time.monotonic()
        run, base = (
            federate(config) if "federation" in self._arguments.arms else prepare_only(config)
        )
        self._load(run, base, held)
        record("base", seconds=0, **self._figures(run.tensors(0)))
        if "federation" in self._arguments.arms:
            steps = sum(u["steps"] for u in read_jsonl(config.run.path / "client_metrics.jsonl"))
            figures = self._figures(run.tensors(run.versions[-1].version))
            record("federation", steps=steps, seconds=round(time.monotonic() - started), **figures)
        if "central" in self._arguments.arms:
            self._train_centrally(run, record)

    def _choose_pairs(self) -> tuple[list[PreferencePair], list[PreferencePair]]:
        """Return held-out pairs and training pairs that fit, without a prompt on both sides."""
        from common.paths import cache_dir
        from learning.models import base
        from learning.models.loader import load_tokenizer

        name = loader.load(self._arguments.config).model.name
        path = base.resolve(name, None, cache_dir(), lambda text, part: None).path
        tokenizer, _ = load_tokenizer(path)
        order = list(self._pairs)
        random.Random(self._seed).shuffle(order)
        chosen, seen = [], set()
        for pair in order:
            if len(chosen) == self._arguments.pairs:
                break
            if (
                pair.question not in seen
                and dpo.encode(tokenizer, [pair], self._arguments.length - 32).examples
            ):
                seen.add(pair.question)
                chosen.append(pair)
        if len(chosen) < self._arguments.pairs:
            print(f"only {len(chosen)} pairs fit")
        held = self._arguments.heldout
        return chosen[:held], chosen[held:]

    def _configure(self, file: Path) -> FederationConfig:
        plan = command.configure(self._arguments.config, None, self._folder / "run")
        kto, steps = self._arguments.objective == "kto", self._arguments.steps
        table = plan.model_dump()
        table["run"]["seed"] = self._seed
        table["model"]["max_length"] = self._arguments.length
        table["data"] |= {"kto" if kto else "va": str(file), "clients": 4, "heldout": 0.05}
        table["phase"] = [
            {
                "objective": self._arguments.objective,
                "versions": steps // LOCAL_STEPS // table["schedule"]["buffer_size"],
                "local_steps": LOCAL_STEPS,
                "batch_size": 2 * BATCH if kto else BATCH,
                "lr": self._arguments.lr,
                "lr_schedule": "constant",
                "beta": 0.1,
            }
        ]
        return first_phase(loader.parse(table, "benchmark"), self._seed)

    def _load(self, run: RecordedRun, base: Path, held: Sequence[PreferencePair]) -> None:
        self._evaluator = Evaluator(run, base, self._compute)
        self._held = self._evaluator.encode("va", 0, [(HELDOUT, pair) for pair in held])
        self._evaluator.load_tensors(run.tensors(0))
        self._reference = self._evaluator.score(self._held)

    def _figures(self, adapter: Any = None) -> dict[str, Any]:
        """Return the figures of an adapter, or of the model as it is, on the held-out pairs."""
        if adapter is not None:
            self._evaluator.load_tensors(adapter)
        scores = self._evaluator.score(self._held)
        values = self._held.metrics([HELDOUT], scores, self._reference).values
        margins = [
            0.1 * ((a - c) - (b - d))
            for (a, b), (c, d) in zip(scores, self._reference, strict=True)
        ]
        low, high = wilson(values["reward_accuracy"], len(margins))
        return {
            "pairs_heldout": len(margins),
            "accuracy": round(values["accuracy"], 3),
            "reward_accuracy": round(values["reward_accuracy"], 3),
            "interval": [round(low, 3), round(high, 3)],
            "margin": round(fmean(margins), 4),
            "margin_error": round(Z * stdev(margins) / math.sqrt(len(margins)), 4),
        }

    def _train_centrally(self, run: RecordedRun, record: Record) -> None:
        phase = run.config.phase[0]
        kind = phase.kind
        shards = [
            splits.split_rows(rows.read(kind, shard.path).rows).train
            for shard in self._evaluator.prepared.shards
            if shard.kind == kind
        ]
        encoded = self._evaluator.encode(kind, 0, [("", row) for shard in shards for row in shard])
        model, autocast = self._evaluator.model, self._compute.autocast
        self._evaluator.load_tensors(run.tensors(0))
        examples = self._with_reference(model, encoded.examples, autocast)
        objective = registry.make_objective(
            phase.objective, phase.dpo or phase.kto, run.labels, prompt=run.prompt
        )
        steps = self._arguments.steps
        started = time.monotonic()

        def on_step(report: loop.StepReport) -> bool:
            if report.step % max(1, steps // MEASURED) == 0:
                record(
                    "central",
                    steps=report.step,
                    rows=len(examples),
                    loss=round(report.loss, 4),
                    seconds=round(time.monotonic() - started),
                    **self._figures(),
                )
                model.train(objective.dropout)
            return True

        lora.write_adapter(model, run.tensors(0))
        training = LocalTraining(
            batch_size=phase.batch_size,
            lr=phase.lr,
            steps=steps,
            max_length=self._arguments.length,
        )
        loop.train(
            model, objective, examples, training, on_step, seed=self._seed, autocast=autocast
        )

    def _with_reference(self, model: Any, examples: Sequence[Any], autocast: bool) -> Sequence[Any]:
        module = kto if self._arguments.objective == "kto" else dpo
        reference = module.log_probabilities(model, examples, autocast=autocast)
        return [*map(module.with_reference, examples, reference)]


def prepare_only(config: FederationConfig) -> tuple[RecordedRun, Path]:
    """Prepare a run without training it."""
    from cli.console import Output
    from cli.run import session
    from cli.run.local_tasks import LocalTasks
    from common.run_directory.recorded_run import read_run

    output = Output(plain=True)
    tasks = LocalTasks(output.progress, output.print)
    run = session.open_run(config, "start", tasks, output, on_set_aside=lambda old: None)
    run.journal.close()
    return read_run(config.run.path), run.base_path


if __name__ == "__main__":
    main()
