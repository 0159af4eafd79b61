"""Contribution sources: which of them finds a client whose labels are corrupted, and at what cost.

    python -m benchmarks.contributions --data FILE [--model NAME] [--sources train holdout …]
        [--clients N] [--versions N] [--steps N] [--lr X] [--seeds 0 1 2] [--out FILE]

Rows of a file of labelled texts are dealt to clients. In the rows of the first client every label
is replaced by the next one, in all of its splits: it does not know. The same plan runs once for
each contribution source, in one process, from the same adapter, with weights from the loss alone
(`contribution_mode = "loss"`). Recorded are the client's mean weight in the buffers that it took
part in, as a multiple of the average (1: it counts like any other), the accuracy of the last
version on held-out rows, and the seconds and bytes that computing scores took.

`none` is the same plan with all labels left alone and weights by `train`. A source finds the client
if its weight is clearly below 1.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.comparison import LIMIT_S
from benchmarks.federation import Federation
from cli.console import Output
from cli.run import session
from cli.run.local_tasks import LocalTasks
from common.config import loader
from common.config.config import FederationConfig, IncrementalConfig
from common.run_directory.recorded_run import RecordedRun, read_run
from evaluation.evaluator import HELDOUT, Evaluator
from learning.data import splits
from learning.training.device import detect

SOURCES = ("train", "holdout", "server", "federated", "cosine")
CORRUPTED = "client_0"

Record = Callable[..., None]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="offline:bert-tiny")
    parser.add_argument("--sources", nargs="+", default=["none", *SOURCES])
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--versions", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="file to which results are appended")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for source in arguments.sources:
            line = json.dumps({"seed": seed, "source": source, **measure(arguments, seed, source)})
            print(line, flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


def measure(arguments: argparse.Namespace, seed: int, source: str) -> dict[str, Any]:
    """Run the federation with a contribution source, and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        config = configure(arguments, seed, source, Path(folder))
        output = Output(plain=True)
        tasks = LocalTasks(output.progress, output.print)
        run = session.open_run(config, "start", tasks, output, on_set_aside=lambda old: None)
        if source != "none":
            corrupt(run.directory / "clients" / f"{CORRUPTED}_cls.jsonl")
        base_path, end = run.base_path, arguments.versions
        begun = time.monotonic()
        with Federation(run, IncrementalConfig(enabled=False), output.print) as federation:
            federation.wait_until(lambda: federation.version() >= end, f"version {end}", LIMIT_S)
        seconds = time.monotonic() - begun
        recorded = read_run(config.run.path)
        return {
            **weights(recorded),
            **scores(recorded),
            "accuracy": accuracy(recorded, base_path),
            "seconds": round(seconds, 1),
        }


def configure(
    arguments: argparse.Namespace, seed: int, source: str, folder: Path
) -> FederationConfig:
    return loader.parse(
        {
            "run": {"name": "run", "dir": str(folder), "seed": seed},
            "model": {"name": arguments.model, "max_length": 64},
            "data": {"cls": str(arguments.data), "clients": arguments.clients, "alpha": 5.0},
            "phase": [
                {
                    "objective": "classification",
                    "versions": arguments.versions,
                    "local_steps": arguments.steps,
                    "batch_size": 16,
                    "lr": arguments.lr,
                }
            ],
            "schedule": {"concurrency": arguments.clients, "buffer_size": 3},
            "aggregation": {
                "contribution_mode": "loss",
                "contribution_source": "train" if source == "none" else source,
            },
            "samples": {"prompts": 0},
        },
        "benchmark",
    )


def corrupt(path: Path) -> None:
    """Replace every label of a client's rows by the next class."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = sorted({row["label"] for row in rows})
    following = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    changed = [{**row, "label": following[row["label"]]} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")


def weights(run: RecordedRun) -> dict[str, Any]:
    """Return mean weights as multiples of the average, in buffers of several clients."""
    corrupted: list[float] = []
    honest: list[float] = []
    for version in run.versions:
        clients = {update.client_id for update in version.updates}
        if len(clients) < 2 or CORRUPTED not in clients:
            continue
        for client in clients:
            own = sum(u.weight for u in version.updates if u.client_id == client)
            (corrupted if client == CORRUPTED else honest).append(own * len(clients))
    return {
        "buffers": len(corrupted),
        "corrupted": round(fmean(corrupted), 3) if corrupted else None,
        "honest": round(fmean(honest), 3) if honest else None,
    }


def scores(run: RecordedRun) -> dict[str, Any]:
    """Return how many updates have a score, with means by client, and what scores cost."""
    of: dict[bool, list[float]] = {True: [], False: []}
    for score in run.scores:
        of[score.client_id == CORRUPTED].append(score.score)

    def mean(values: Sequence[float]) -> float | None:
        return round(fmean(values), 4) if values else None

    return {
        "scored": len(run.scores),
        "score_corrupted": mean(of[True]),
        "score_honest": mean(of[False]),
        "score_seconds": round(sum(score.seconds for score in run.scores), 2),
        "score_bytes": sum(score.nbytes for score in run.scores),
    }


def accuracy(run: RecordedRun, base_path: Path) -> float:
    """Return the accuracy of the newest version on the held-out rows."""
    evaluator = Evaluator(run, base_path, detect())
    rows = evaluator.heldout_rows("cls", splits.MAX_HELDOUT)
    encoded = evaluator.encode("cls", 0, [(HELDOUT, row) for row in rows])
    evaluator.load_tensors(run.tensors(run.versions[-1].version))
    found = evaluator.score(encoded)
    return round(encoded.metrics([HELDOUT], found, found).values["accuracy"], 4)


if __name__ == "__main__":
    main()
