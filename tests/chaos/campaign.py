"""Campaign: runs the federations of seeds one after the other, and checks and records each."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos import ledger, leftovers
from tests.chaos.faults import INJECTIONS, Condition, Injection, Recovery, target
from tests.chaos.federation import Federation, Servers, federation
from tests.chaos.part import PartRefused
from tests.chaos.plan import ChaosPlan, Fault
from tests.chaos.table import FaultRecord, FederationRecord

TICK_S = 0.05
START_S = 240.0
CALM_S = 400.0
"""A federation must be complete this long after its last fault."""
END_S = 120.0
"""Workers must end this long after the coordinator."""
TOO_LATE = "(the last one is finished)"
"""Output of a worker that waits for the next run."""
LEAST_DISTANCE_S = 0.05
MOST_OPEN = 3
"""The schedule is held up while so many faults are active or not recovered from."""
MOST_HELD_S = 20.0
"""… since the last one began, at most: a run that never recovers must not look like one."""


class FederationFailed(Exception):
    """A federation that does not end, or whose processes do what they must not."""


@dataclass
class Injected:
    """A fault that has begun."""

    number: int
    fault: Fault
    target: str
    steps: Injection
    began: float | None = None  # None while it waits for another fault of its target
    until: Condition | None = None
    recovery: Recovery | None = None
    recovered_at: float | None = None
    over: bool = False
    alone: bool = True

    @property
    def waits(self) -> bool:
        return self.began is None and not self.over

    @property
    def active(self) -> bool:
        return self.began is not None and not self.over

    @property
    def open(self) -> bool:
        """Whether it is active, or its recovery is still awaited."""
        return self.active or (self.recovery is not None and self.recovered_at is None)

    def step(self) -> None:
        """Go on if what it waits for has happened."""
        if self.until is not None and not self.until():
            return
        try:
            awaited = next(self.steps)
        except StopIteration as end:
            self.over, self.recovery = True, end.value
            return
        self.until = _after(awaited) if isinstance(awaited, float | int) else awaited


class Chaos:
    """One federation with its faults, from its start to the checks after its end."""

    def __init__(self, run: Federation, say: Callable[[str], None]) -> None:
        self._run, self._plan, self._say = run, run.plan, say
        self.injected: list[Injected] = []
        self._began = 0.0

    def execute(self) -> None:
        """Run the federation to its end.

        Raises:
            FederationFailed: It did not end in time.
        """
        run = self._run
        self._wait("version 0", lambda: run.progress.version >= 0, START_S)
        self._began = time.monotonic()
        waiting = list(enumerate(self._plan.faults))
        passed, before = 0.0, self._began
        while not run.coordinator.finished and (waiting or any(not i.over for i in self.injected)):
            now = time.monotonic()
            coming = waiting[0][1] if waiting else None
            if not self._is_held_up(now, coming):
                passed += now - before
            before = now
            if coming and passed >= coming.at_s:
                self._inject(*waiting.pop(0))
            self._tick()
        self._say(f"the last of {len(self.injected)} faults is over")
        self._wait("the end of the run", lambda: run.coordinator.finished, CALM_S)
        for injected in self.injected:
            injected.steps.close()
        run.calm()
        self._end_workers()

    def records(self, commit: str) -> list[FaultRecord]:
        return [
            FaultRecord(
                commit,
                self._plan.seed,
                i.number,
                i.fault.kind,
                round(i.began - self._began, 2),
                i.fault.seconds,
                None if i.recovered_at is None else round(i.recovered_at, 2),
                i.alone,
            )
            for i in self.injected
            if i.began is not None
        ]

    def _inject(self, number: int, fault: Fault) -> None:
        injection = INJECTIONS[fault.kind](self._run, fault)
        self.injected.append(Injected(number, fault, target(self._run, fault), injection))

    def _is_held_up(self, now: float, coming: Fault | None) -> bool:
        waiting = [injected for injected in self.injected if injected.open or injected.waits]
        solitary = [i.fault for i in waiting] + ([coming] if coming else [])
        most = 1 if any(fault.solitary for fault in solitary) else MOST_OPEN
        begun = max((i.began for i in self.injected if i.began is not None), default=now)
        return len(waiting) >= most and now - begun < MOST_HELD_S

    def _wait(self, what: str, condition: Condition, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise FederationFailed(f"{what} did not come within {limit_s:.0f} s")
            self._tick()

    def _tick(self) -> None:
        self._run.tend()
        busy = {injected.target for injected in self.injected if injected.active}
        for injected in self.injected:
            if injected.waits and injected.target not in busy:
                self._begin(injected)
                busy.add(injected.target)
            if injected.active:
                injected.step()
            self._check_recovery(injected)
        time.sleep(TICK_S)

    def _begin(self, injected: Injected) -> None:
        injected.began = time.monotonic()
        for other in self.injected:
            if other is not injected and other.open and injected.fault.kind != "updates repeated":
                other.alone = injected.alone = False
        at = injected.began - self._began
        progress = self._run.progress
        self._say(
            f"{at:6.1f} s  fault {injected.number:2d}  {injected.fault.kind} ({injected.target});"
            f" version {progress.version}, {len(progress.accepted)} updates"
        )

    def _check_recovery(self, injected: Injected) -> None:
        recovery = injected.recovery
        if recovery is None or injected.recovered_at is not None:
            return
        for acceptance in self._run.progress.accepted:
            later = acceptance.seen_at - recovery.since > LEAST_DISTANCE_S
            if later and recovery.shows(acceptance):
                injected.recovered_at = acceptance.seen_at - recovery.since
                return

    def _end_workers(self) -> None:
        """Wait for the workers; one that began after the end of the run waits for the next run."""
        deadline = time.monotonic() + END_S
        told: set[int] = set()
        while not all(worker.finished for worker in self._run.workers):
            if time.monotonic() > deadline:
                names = [worker.name for worker in self._run.workers if not worker.finished]
                raise FederationFailed(f"{', '.join(names)} did not end within {END_S:.0f} s")
            for worker in self._run.workers:
                command = worker.newest
                if command.pid not in told and TOO_LATE in command.out:
                    worker.signal(signal.SIGTERM)
                    told.add(command.pid)
            self._tick()


def run_seed(
    plan: ChaosPlan,
    directory: Path,
    servers: Servers,
    commit: str,
    say: Callable[[str], None],
) -> tuple[list[FaultRecord], FederationRecord]:
    """Run and check the federation of a plan; its directory stays only if it has problems."""
    directory.mkdir(parents=True)
    servers.start()
    began = time.monotonic()
    with federation(plan, directory, servers) as run:
        chaos = Chaos(run, say)
        problems: list[str] = []
        try:
            chaos.execute()
        except (FederationFailed, PartRefused) as error:
            problems += [str(error), run.describe()]
        problems += [text for part in run.parts for text in part.unexpected_errors()]
        recomputed = 0
        if run.coordinator.finished:
            # What a worker left behind that was down at the end stays: nobody serves a run twice.
            late = any(part.says(TOO_LATE) for part in run.workers)
            states = [] if late else [run.state]
            report = ledger.check(run.run, states, witness=run.witness)
            recomputed = report.recomputed
            problems += [*report.problems, *check_end(run, states)]
        if problems:
            _keep(directory)
        seconds = round(time.monotonic() - began, 1)
        faults = chaos.records(commit)
        progress = run.progress
        record = FederationRecord(
            commit,
            plan.seed,
            len(faults),
            seconds,
            progress.version,
            recomputed,
            len(progress.accepted),
            progress.epoch,
            tuple(problem[:2000] for problem in problems),
        )
    if not problems:
        shutil.rmtree(directory)
    for problem in problems:
        say(f"seed {plan.seed}: {problem}")
    return faults, record


def check_end(run: Federation, states: list[Path]) -> list[str]:
    """Check what a complete federation leaves; return the problems."""
    problems = []
    if run.progress.version != run.plan.total_versions:
        problems.append(f"the run ended at version {run.progress.version}")
    problems += leftovers.leftover_files(run.run, states)
    problems += [text for state in states for text in leftovers.leftover_work(state)]
    problems += leftovers.leftover_queues(run.servers.rabbitmq.url, run.progress.run_id)
    problems += leftovers.leftover_processes(run.directory)
    return problems


def _keep(directory: Path) -> None:
    """Copy what is on small disks, which are about to be unmounted."""
    for path in (directory / "runs", directory / "state"):
        shutil.copytree(path, path.with_name(f"kept-{path.name}"), dirs_exist_ok=True)


def _after(seconds: float) -> Condition:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline
