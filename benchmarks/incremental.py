"""Experiment: does learning from users between rounds help, and does it forget?

    python -m benchmarks.incremental --data DIR --model MODEL [--arms none ungated gated]
        [--base-versions 12] [--settle 4] [--films 50] [--batches 4] [--seed 0] [--json FILE]

Five clients train a classifier of film reviews up to a fixed version. Each arm continues from a
copy of that run, in which the users of two clients enter reviews, fifty at a time: more films,
household machines, stays in hospital, and finally a burst of reviews with the wrong label.

    none       nothing is learned from users
    ungated    everything is learned, without gate and replay
    gated      with both

After each domain, the models of the two learning clients are measured at once, and the global
version `--settle` versions later. Each step waits for the verdicts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import streams
from benchmarks.federation import Federation
from benchmarks.streams import FLIPPED, StreamRows, StreamSizes
from benchmarks.users import (
    LIMIT_S,
    BatchOutcome,
    Snapshot,
    client_snapshot,
    global_snapshot,
    teach,
)
from cli.console import Output
from cli.run import session
from cli.run.local_tasks import LocalTasks
from common.config import loader
from common.config.config import FederationConfig, IncrementalConfig
from common.errors import FcclError
from coordinator.storage.run import Run
from learning.data import rows
from learning.models import lora, objective_model
from learning.objectives import registry
from learning.synthetic.sentiment import LABELS
from learning.training.device import detect

ARMS = ("none", "ungated", "gated")
LEARNERS = ("client_0", "client_1")
SECOND_PHASE = 400  # versions, more than any stream needs


@dataclass
class Trace:
    """Snapshots and outcomes of one arm."""

    snapshots: list[Snapshot] = field(default_factory=list)
    outcomes: list[BatchOutcome] = field(default_factory=list)


def main() -> None:
    """Run the arms and print a table."""
    arguments = _arguments()
    sizes = StreamSizes(
        dealt=arguments.dealt,
        tests=arguments.tests,
        films=arguments.films,
        batches=arguments.batches,
        batch=arguments.batch,
        flipped=arguments.lies,
    )
    try:
        stream = streams.stream_rows(arguments.data, LEARNERS, sizes, arguments.seed)
        with tempfile.TemporaryDirectory() as temporary:
            folder = arguments.out or Path(temporary)
            results = experiment(arguments, stream, folder)
    except FcclError as error:
        raise SystemExit(f"error: {error}") from None
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def experiment(arguments: argparse.Namespace, stream: StreamRows, folder: Path) -> dict[str, Any]:
    """Run all arms; return, by arm, the figures of each snapshot and the outcome of each batch."""
    config = base_config(arguments, stream, folder)
    say = print if arguments.verbose else _silent
    base(config, arguments.base_versions, say)
    results: dict[str, Any] = {}
    measure = Meter(config, stream)
    for arm in arguments.arms:
        start = time.monotonic()
        trace = run_arm(config, arm, stream, arguments, say)
        results[arm] = {
            "seconds": round(time.monotonic() - start, 1),
            "figures": [measure.figures(snapshot) for snapshot in trace.snapshots],
            "told": [asdict(outcome) for outcome in trace.outcomes],
        }
        print(json.dumps({arm: results[arm]}), flush=True)
    return results


def base_config(
    arguments: argparse.Namespace, stream: StreamRows, folder: Path
) -> FederationConfig:
    """Return the configuration of the film review federation, whose rows are written to disk."""
    folder.mkdir(parents=True, exist_ok=True)
    reviews = folder / "films.jsonl"
    rows.write(reviews, stream.dealt)
    rest = {"objective": "classification", "local_steps": 5, "batch_size": 16}
    return loader.parse(
        {
            "run": {
                "name": "films", "dir": str(folder / "base"), "seed": arguments.seed,
                "keep_versions": SECOND_PHASE,
            },
            "model": {"name": arguments.model, "max_length": 64},
            "data": {
                "cls": str(reviews), "labels": list(LABELS), "clients": 5,
                "alpha": arguments.alpha,
            },
            "phase": [
                {
                    "objective": "classification", "versions": arguments.base_versions,
                    "local_steps": 10, "batch_size": 32, "lr": 2e-3,
                },
                {
                    **rest, "versions": SECOND_PHASE, "lr": arguments.later_lr,
                    "lr_schedule": "constant",
                },
            ],
            "schedule": {"concurrency": 4},
            "aggregation": {"contribution_mode": "size", "clip": arguments.clip},
        },
        "benchmarks.incremental",
    )  # fmt: skip


def base(config: FederationConfig, version: int, say: Callable[[str], None]) -> None:
    """Train the version from which every arm starts."""
    if config.run.path.exists():
        print(f"continuing from {config.run.path}")
        return
    run = _open(config, "start")
    with Federation(run, IncrementalConfig(enabled=False), say) as federation:
        federation.wait_until(
            lambda: federation.version() >= version, f"version {version}", version * 60 + LIMIT_S
        )


def run_arm(
    config: FederationConfig,
    arm: str,
    stream: StreamRows,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> Trace:
    """Run one arm over the whole stream, from a copy of the base run."""
    place = config.run.path.parent.with_name(arm)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(config.run.path.parent, place, ignore=shutil.ignore_patterns(".workers"))
    table = config.model_dump()
    table["run"]["dir"] = str(place)
    run = _open(loader.parse(table, arm), "resume")
    settings = incremental(arm, arguments)
    trace = Trace()
    with Federation(run, settings, say) as federation:
        federation.wait_until(lambda: federation.version() > 0, "the first version", LIMIT_S)
        trace.snapshots.append(global_snapshot(run, federation, ""))
        for domain, steps in groupby(stream.steps, key=lambda step: step[0].domain):
            for batches in steps:
                if settings.enabled:
                    trace.outcomes += teach(federation, settings, batches)
            if settings.enabled:
                trace.snapshots += [
                    client_snapshot(federation, domain, client) for client in LEARNERS
                ]
            later = federation.version() + arguments.settle
            federation.wait_until(
                lambda later=later: federation.version() >= later,  # type: ignore[misc]
                f"version {later}",
                LIMIT_S,
            )
            trace.snapshots.append(global_snapshot(run, federation, domain))
    return trace


def incremental(arm: str, arguments: argparse.Namespace) -> IncrementalConfig:
    """Return the `[incremental]` section of an arm."""
    common = {"lr": arguments.lr, "batch_size": arguments.batch_size, "push": arguments.push}
    match arm:
        case "none":
            return IncrementalConfig(enabled=False)
        case "ungated":
            few = max(
                1, round(arguments.batch_size * (1 - arguments.replay))
            )  # as many new rows as with replay
            common["batch_size"] = few
            return IncrementalConfig(gate=False, replay=0.0, **common)
        case _:
            return IncrementalConfig(replay=arguments.replay, **common)


class Meter:
    """Measures models of the run on the three domains."""

    def __init__(self, config: FederationConfig, stream: StreamRows) -> None:
        self._compute = detect()
        run = _open(config, "resume")
        run.journal.close()
        loaded = objective_model.load_for_objective(
            "classification", run.base_path, LABELS, self._compute.device
        )
        self._objective = registry.make_objective("classification", None, LABELS)
        self._model = lora.attach(loaded.model, config.model.lora, config.run.seed)
        self._tests: Mapping[str, Sequence[Any]] = {
            domain: self._objective.encode(
                loaded.tokenizer, tests, config.model.max_length
            ).examples
            for domain, tests in stream.tests.items()
        }

    def figures(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return accuracy and loss by domain."""
        lora.write_adapter(self._model, snapshot.adapter)
        found: dict[str, Any] = {
            "after": snapshot.after, "who": snapshot.who, "version": snapshot.version,
        }  # fmt: skip
        for domain, tests in self._tests.items():
            measured = self._objective.measure(self._model, tests, autocast=self._compute.autocast)
            found[domain] = {"accuracy": measured.accuracy, "loss": round(measured.loss, 4)}
        return found


def show(results: Mapping[str, Any]) -> None:
    """Print the accuracy of every snapshot, and the outcomes of the batches."""
    print("\n| arm | after | model | version | " + " | ".join(streams.DOMAINS) + " |")
    print("| --- | --- | --- | --- |" + " --- |" * len(streams.DOMAINS))
    for arm, result in results.items():
        for each in result["figures"]:
            accuracies = " | ".join(f"{each[d]['accuracy']:.1%}" for d in streams.DOMAINS)
            after = each["after"] or "base"
            print(f"| {arm} | {after} | {each['who']} | {each['version']} | {accuracies} |")
    for arm, result in results.items():
        for domain in (*streams.DOMAINS, FLIPPED):
            outcomes = [each for each in result["told"] if each["domain"] == domain]
            if outcomes:
                kept = sum(each["verdict"] == "accepted" for each in outcomes)
                longest = max(each["seconds"] for each in outcomes)
                print(
                    f"{arm}, {domain}: {kept} of {len(outcomes)} learned, {longest:.0f} s at most"
                )


def _open(config: FederationConfig, mode: str) -> Run:
    output = Output(plain=True)
    tasks = LocalTasks(output.progress, output.print)
    return session.open_run(config, mode, tasks, output, on_set_aside=lambda run: None)


def _silent(text: str) -> None:
    del text


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the film reviews")
    parser.add_argument("--model", required=True, help="encoder: hub id or directory")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument(
        "--out", type=Path, help="keep the runs here; a base run found there is reused"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alpha", type=float, default=5.0, help="skew of the film reviews")
    parser.add_argument("--base-versions", type=int, default=12)
    parser.add_argument(
        "--later-lr", type=float, default=3e-4, help="learning rate of tasks during the stream"
    )
    parser.add_argument("--settle", type=int, default=4, help="versions to wait after a domain")
    parser.add_argument(
        "--lr", type=float, help="learning rate of live input [default: the product's]"
    )
    parser.add_argument(
        "--batch-size", type=int, default=8, help="batch size of learning from users"
    )
    parser.add_argument("--replay", type=float, default=0.5, help="share of old rows in a batch")
    parser.add_argument(
        "--push", action="store_true", help="send what was learned in an update of its own"
    )
    parser.add_argument("--clip", type=float, default=4.0, help="aggregation.clip of the run")
    parser.add_argument("--dealt", type=int, default=0, help="film reviews for the federation")
    parser.add_argument("--tests", type=int, default=400)
    parser.add_argument(
        "--films", type=int, default=50, help="film reviews for each client's users"
    )
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--lies", type=int, default=100)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print the events of the run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
