"""One process that feeds mutated inputs to targets, within limits of time and memory."""

from __future__ import annotations

import json
import mmap
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.target import Reader, Target, attempt

SECONDS = 5.0  # of an input's CPU time
MEMORY = 96 << 20  # bytes by which the process may grow for an input, besides FACTOR × its size
FACTOR = 64
MAX_INPUT = 1 << 20
FIRST_SEEDS, SEEDS = 100, 300  # inputs to start from: valid ones, and changed ones
ROUND = 1000  # inputs of a round over all targets
MINIMISE = 150  # further inputs to make a failing one smaller
PROJECT = Path(__file__).parents[2]


class Hang(BaseException):
    """End of an input that took too long; no handler of `Exception` catches it."""


class Grew(Exception):
    """Growth of the process above the limit."""


@dataclass
class Counts:
    """Inputs of one target: tried, accepted, and those that failed by kind of failure."""

    tried: int = 0
    accepted: int = 0
    seconds: float = 0.0
    failed: dict[str, int] = field(default_factory=dict)


def _on_alarm(_: int, __: FrameType | None) -> None:
    raise Hang


def kind_of_failure(error: BaseException) -> str:
    """Return the type of an error, and the line of this project that it passed last."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if str(PROJECT) in f.filename and "/tests/fuzz/" not in f.filename]
    place = f"{Path(own[-1].filename).relative_to(PROJECT)}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {place}"


def run_one(reader: Reader, data: bytes) -> tuple[bool, BaseException | None]:
    """Return whether an input was accepted, and how it failed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        accepted = attempt(reader, data)
    except (Exception, Hang, SystemExit) as error:
        return False, error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MEMORY + FACTOR * len(data):
        return False, Grew(f"{grown >> 20} MiB for {len(data)} bytes")
    return accepted, None


def minimised(reader: Reader, data: bytes, kind: str) -> bytes:
    """Return a smaller input that fails in the same way, as far as a few tries find one."""
    tries, size = MINIMISE, max(1, len(data) // 2)
    while size and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            shorter = data[:at] + data[at + size :]
            tries -= 1
            _, error = run_one(reader, shorter)
            if error is not None and kind_of_failure(error) == kind:
                data = shorter
            else:
                at += size
        size //= 2
    return data


class Engine:
    """Loop over the targets of one process."""

    def __init__(
        self,
        targets: Sequence[Target],
        folder: Path,
        seed: int,
        note: mmap.mmap,
        on_failure: Callable[[Target, bytes, str, BaseException], None],
        on_round: Callable[[Engine], None],
    ) -> None:
        """Prepare the targets.

        Args:
            targets: What is tried, in turn.
            folder: Place for their files.
            seed: Of all choices.
            note: Holds the input in progress, for when the process dies.
            on_failure: Called with a target, a small input, the kind of failure and the error.
            on_round: Called after each round over all targets.
        """
        self._on_round = on_round
        self._random, self._note, self._on_failure = Random(seed), note, on_failure
        self.counts = {target.name: Counts() for target in targets}
        self._targets, self._readers, self._seeds = targets, dict[str, Reader](), {}
        for target in targets:
            own = folder / target.name.replace("/", "-")
            own.mkdir(parents=True)
            self._readers[target.name] = target.make(own)
            self._seeds[target.name] = list(target.seeds())
        signal.signal(signal.SIGVTALRM, _on_alarm)

    def run(self, inputs: int, until: float) -> None:
        """Try a number of inputs, in rounds over all targets."""
        shares = sum(target.share for target in self._targets)
        done = 0
        while done < inputs and time.monotonic() < until:
            for target in self._targets:
                count = max(1, round(min(inputs - done, ROUND) * target.share / shares))
                done += self._run_target(target, count, until)
                if done >= inputs or time.monotonic() >= until:
                    break
            self._on_round(self)

    def _run_target(self, target: Target, count: int, until: float) -> int:
        """Try some inputs of one target, and return how many."""
        reader, counts = self._readers[target.name], self.counts[target.name]
        began = time.process_time()
        for number in range(count):
            if time.monotonic() >= until:
                count = number
                break
            data = self._input(target)
            self._write_note(target.name, data)
            accepted, error = run_one(reader, data)
            counts.tried += 1
            counts.accepted += accepted
            if accepted and len(data) < 4096 and self._random.random() < 0.1:
                seeds = self._seeds[target.name]  # so that mutations add up
                seeds[FIRST_SEEDS:] = [*seeds[FIRST_SEEDS:][-SEEDS:], data]
            if error is not None:
                self._fail(target, reader, data, error)
        counts.seconds += time.process_time() - began
        return count

    def _input(self, target: Target) -> bytes:
        seeds, random = self._seeds[target.name], self._random
        data = random.choice(seeds)
        for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
            data = random.choice(target.mutators)(random, data)
        if len(data) > MAX_INPUT:  # a tree whose branches were repeated
            data = mutate_bytes(random, random.choice(seeds))
        return data

    def _write_note(self, name: str, data: bytes) -> None:
        kept = data[: len(self._note) - 200]
        head = json.dumps([name, len(kept)]).encode()
        self._note[:4] = struct.pack("<I", len(head))
        self._note[4 : 4 + len(head) + len(kept)] = head + kept

    def _fail(self, target: Target, reader: Reader, data: bytes, error: BaseException) -> None:
        kind = kind_of_failure(error)
        failed = self.counts[target.name].failed
        failed[kind] = failed.get(kind, 0) + 1
        if failed[kind] == 1:
            small = data if isinstance(error, Hang | Grew) else minimised(reader, data, kind)
            self._on_failure(target, small, kind, error)


def read_note(note: mmap.mmap) -> tuple[str, bytes]:
    """Return the target and the input at which a process died."""
    (size,) = struct.unpack("<I", note[:4])
    name, length = json.loads(note[4 : 4 + size])
    return name, note[4 + size : 4 + size + length]


def limit_memory(nbytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))
    sys.setrecursionlimit(1000)
