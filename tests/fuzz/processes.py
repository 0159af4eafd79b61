"""Processes of a run of the fuzzer: each is started again after it died at an input."""

from __future__ import annotations

import hashlib
import json
import mmap
import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.engine import Counts, Engine, limit_memory, read_note
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import Target

CASES = Path(__file__).parent / "cases"
ADDRESS_SPACE = 12 << 30  # bytes; the libraries of a model take some of it before they are used
NOTE = 4 << 20


def run_processes(
    names: Sequence[str], folder: Path, *, seed: int, inputs: int, processes: int, until: float
) -> tuple[dict[str, Counts], int]:
    """Run the processes, each again after it died, and return the counts and how many died."""
    context = multiprocessing.get_context("spawn")
    share = -(-inputs // processes)
    left = dict.fromkeys(range(processes), share)
    running, died, starts = {}, 0, Counter[int]()
    total = {name: Counts() for name in names}
    while left or running:
        for number in [n for n in left if n not in running]:
            starts[number] += 1
            own_seed = seed * 10_000 + 100 * number + starts[number]
            place = folder / f"{number}-{starts[number]}"
            place.mkdir()
            (place / "note").write_bytes(bytes(NOTE))
            work = (names, place, own_seed, left.pop(number), until)
            running[number] = context.Process(target=_work, args=work), place
            running[number][0].start()
        time.sleep(0.5)
        for number, (process, place) in list(running.items()):
            if process.is_alive():
                if time.monotonic() > until + 60:
                    process.kill()
                continue
            done = _collect(place, total)
            del running[number]
            if process.exitcode and time.monotonic() < until + 60:
                died += 1
                _keep_note(place, process.exitcode)
                if time.monotonic() < until and starts[number] < 50:
                    left[number] = max(1, share - done)
    return total, died


def _work(names: Sequence[str], place: Path, seed: int, inputs: int, until: float) -> None:
    # Errors of libraries that they print themselves would hide the table.
    os.dup2(os.open(place / "stderr", os.O_WRONLY | os.O_CREAT), 2)
    with (place / "note").open("r+b") as file:
        note = mmap.mmap(file.fileno(), NOTE)
        targets = [TARGETS[name] for name in names]
        engine = Engine(
            targets, place / "work", seed, note, _keep, lambda each: _write_counts(place, each)
        )
        limit_memory(ADDRESS_SPACE)
        try:
            engine.run(inputs, until)
        finally:
            _write_counts(place, engine)
    os._exit(0)  # whatever threads a target has left


def _write_counts(place: Path, engine: Engine) -> None:
    counts = {name: vars(each) for name, each in engine.counts.items()}
    (place / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def _collect(place: Path, total: dict[str, Counts]) -> int:
    try:
        counts = json.loads((place / "counts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    for name, each in counts.items():
        into = total[name]
        into.tried += each["tried"]
        into.accepted += each["accepted"]
        into.seconds += each["seconds"]
        for kind, count in each["failed"].items():
            into.failed[kind] = into.failed.get(kind, 0) + count
    return sum(each["tried"] for each in counts.values())


def _keep(target: Target, data: bytes, kind: str, error: BaseException) -> None:
    path = case_path(target.name, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    lines = "".join(traceback.format_exception(error)[-6:])
    print(f"{target.name}: {kind}: {str(error)[:300]!r}\n  {path}\n{lines}", flush=True)


def _keep_note(place: Path, code: int) -> None:
    with (place / "note").open("r+b") as file:
        try:
            name, data = read_note(mmap.mmap(file.fileno(), NOTE))
        except ValueError:
            name, data = "", b""
    errors = (place / "stderr").read_text(encoding="utf-8", errors="replace")[-2000:]
    print(f"a process died with {code} at an input of {name}\n{errors}", flush=True)
    if name:
        path = case_path(name, data)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def case_path(name: str, data: bytes) -> Path:
    return CASES / name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
