"""One simulated run: virtual machines, the coordinator's core, and figures of its versions.

The coordinator reads heartbeats a second after a machine appears or vanishes, and three times per
lease; otherwise it acts when an answer arrives or a deadline passes, not every second. Nothing
reads this machine's clock, so the same settings give the same versions, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event as Flag
from types import MappingProxyType

from common.config.simulation import SimulationConfig
from common.protocol.codec import payload_bytes
from common.protocol.evaluations import EvalTask
from common.protocol.layout import TensorLayout
from common.protocol.tasks import TrainTask
from coordinator.core.events import (
    AcceptEvaluation,
    AcceptUpdate,
    Action,
    CloseEvaluation,
    CloseTask,
    DiscardMessage,
    DuplicateArrived,
    FinishRun,
    HeartbeatsRead,
    IssueTask,
    StopRequested,
    Tick,
    WorkerSignal,
)
from coordinator.core.state import Plan
from coordinator.storage.run import Run
from coordinator.storage.step_writer import WrittenStep
from simulation.driver.answers import HEADER_BYTES, Answers, VirtualTimes
from simulation.driver.clock import VirtualClock
from simulation.driver.coordinator import ComputeScores, VirtualCoordinator
from simulation.driver.machine import Job, Machine, MachineHooks
from simulation.driver.memory_spool import MemorySpool
from simulation.population.client import VirtualClient
from simulation.population.streams import Streams
from simulation.records import INTERRUPTED, Measurement, append_measurement
from simulation.work.parts import Heldout
from simulation.work.work import Work
from worker.site_task import SiteTask

HEARTBEAT_S = 1.0
"""Time after which the coordinator notices that a machine has appeared or vanished."""
PULSES_PER_LEASE = 3
CLIENTS_PER_PULSE_S = 5000
"""Heartbeats of more clients are read at longer intervals: reading takes time for each of them."""
FORWARD_PASSES = 3
"""Forward passes that a row takes in training; an evaluation takes one."""
_MARGIN_S = 1e-3  # after a deadline, so that rounding cannot put its tick before it


@dataclass
class Counts:
    """Totals of a run so far."""

    tasks: int = 0
    updates: int = 0
    rejected: int = 0
    lost: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


def with_own_sites(plan: Plan) -> Plan:
    """Return the plan with a site for each client, so that each has a worker and a lease."""
    clients = {name: replace(client, site=name) for name, client in plan.clients.items()}
    return replace(plan, clients=MappingProxyType(clients))


class Simulator:
    """Run in virtual time; `run` simulates it to its end."""

    def __init__(
        self,
        run: Run,
        config: SimulationConfig,
        population: Sequence[VirtualClient],
        streams: Streams,
        work: Work,
        make_answers: Callable[[MemorySpool, VirtualCoordinator], Answers],
        compute_scores: Callable[[MemorySpool], ComputeScores],
        heldout: Heldout,
        on_progress: Callable[[int, float], None],
    ) -> None:
        """Create it.

        Args:
            run: A new run directory.
            config: The section [simulation].
            population: The clients of the plan, in its order.
            streams: Random streams of the run's seed.
            work: Tells how long tasks take.
            make_answers: Returns what computes the answers.
            compute_scores: Returns what computes scores of the updates in a spool.
            heldout: Measures versions.
            on_progress: Called with the newest version and the virtual time in seconds.
        """
        self.clock, self.counts = VirtualClock(), Counts()
        self.measured: list[Measurement] = []
        self.stop_reason = ""
        self._run, self._config, self._work, self._heldout = run, config, work, heldout
        self._on_progress = on_progress
        self._plan = with_own_sites(run.plan)
        spool = MemorySpool(run.directory / "spool")
        self.coordinator = VirtualCoordinator(
            run,
            self._plan,
            self.clock,
            spool,
            compute_scores(spool),
            self._dispatch,
            self._after_step,
        )
        self._answers = make_answers(spool, self.coordinator)
        self._layout = TensorLayout.of(run.versions.read(0))
        self._update_bytes: dict[str, int] = {}  # by client
        hooks = MachineHooks(
            work_s=self._work_s,
            answer_bytes=self._bytes_up,
            task_bytes=self._bytes_down,
            is_wanted=self._is_wanted,
            deliver=self._deliver,
            on_lost=self._count_lost,
            on_signal=self._note_signal,
        )
        self._machines = {
            each.name: Machine(each, self.clock, streams, hooks) for each in population
        }
        self._signals: dict[str, WorkerSignal] = {}
        self._pulse_at = math.inf
        self._tick_at = math.inf

    def run(self, stop: Flag) -> FinishRun:
        """Simulate until the run ends, its time is over, or `stop` is set; return how it ended."""
        for machine in self._machines.values():
            machine.start(self._config.max_s)
        self.coordinator.start()
        self._measure(0, 0)
        self._pulse()
        while self.coordinator.finished is None:
            if stop.is_set():
                self._end(INTERRUPTED)
            elif self.clock.next_time() > self._config.max_s:
                self._end(f"simulation.max_s of {self._config.max_s:g} s is over")
            else:
                self.clock.advance()
                self._plan_tick()
        return self.coordinator.finished

    def _end(self, reason: str) -> None:
        self.stop_reason = self.stop_reason or reason
        self.coordinator.feed(StopRequested())

    # heartbeats and deadlines

    def _note_signal(
        self, client: VirtualClient, signal: WorkerSignal | None, appeared_or_vanished: bool
    ) -> None:
        """Keep the newest heartbeat; read all soon if a machine has appeared or vanished."""
        if signal is None:
            self._signals.pop(client.name, None)
        else:
            self._signals[client.name] = signal
        if not appeared_or_vanished:
            return
        delay = max(HEARTBEAT_S, len(self._machines) / CLIENTS_PER_PULSE_S)
        self._pulse_no_later_than(self.clock.seconds + delay)

    def _pulse_no_later_than(self, at: float) -> None:
        if at < self._pulse_at:
            self._pulse_at = at
            self.clock.at(at, lambda: self._pulse_planned(at))

    def _pulse_planned(self, at: float) -> None:
        if at == self._pulse_at:
            self._pulse()

    def _pulse(self) -> None:
        self._pulse_at = math.inf
        self.coordinator.feed(HeartbeatsRead(tuple(self._signals.values())))
        lease = self._plan.schedule.lease_s
        self._pulse_no_later_than(self.clock.seconds + lease / PULSES_PER_LEASE)

    def _plan_tick(self) -> None:
        """Plan the time at which the buffer is due, unless it is planned already."""
        due = self.coordinator.next_deadline()
        if due is None or due == self._tick_at:
            return
        self._tick_at = due
        self.clock.after(due - self.clock.now + _MARGIN_S, lambda: self.coordinator.feed(Tick()))

    # tasks and answers

    def _dispatch(self, site: str, task: SiteTask) -> None:
        self.counts.bytes_down += self._bytes_down(task)
        self._machines[site].receive(task)

    def _is_wanted(self, task: SiteTask) -> bool:
        state = self.coordinator.state
        open_ones = state.tasks if isinstance(task, TrainTask) else state.evaluations
        return task.task_id in open_ones

    def _work_s(self, client: VirtualClient, task: SiteTask) -> float:
        """Return the virtual time of a task, which its number of steps or rows decides."""
        if isinstance(task, TrainTask):
            return self._work.steps(task) * self._config.step_s / client.speed
        batch = self._plan.phases[task.phase].batch_size
        passes = 2 if task.candidate else 1
        steps = passes * task.max_rows / batch / FORWARD_PASSES
        return steps * self._config.step_s / client.speed

    def _bytes_up(self, task: SiteTask) -> int:
        if isinstance(task, EvalTask):
            return HEADER_BYTES
        client = task.client_id
        if client not in self._update_bytes:
            layout = self._run.rule.update_layout(self._layout, client)
            nbytes = payload_bytes(self._run.template.update_codec, layout)
            self._update_bytes[client] = HEADER_BYTES + nbytes
        return self._update_bytes[client]

    def _bytes_down(self, task: SiteTask) -> int:
        candidate = task.candidate if isinstance(task, EvalTask) else None
        return HEADER_BYTES + task.adapter.nbytes + (candidate.nbytes if candidate else 0)

    def _deliver(self, client: VirtualClient, job: Job) -> None:
        task = job.task
        self.counts.bytes_up += self._bytes_up(task)
        if not self._is_wanted(task):
            self.coordinator.feed(DuplicateArrived(task.task_id))
            return
        seconds = self._work_s(client, task)
        if isinstance(task, EvalTask):
            self.coordinator.feed(self._answers.evaluate(client, task, seconds))
            return
        times = VirtualTimes(seconds, job.download_s)
        event = self._answers.train(client, task, job.number, times)
        self.coordinator.feed(event, getattr(event, "upload", ""))

    def _count_lost(self, client: VirtualClient, job: Job) -> None:
        self.counts.lost += 1

    # after a step of the core

    def _after_step(self, actions: tuple[Action, ...], written: WrittenStep) -> None:
        for action in actions:
            match action:
                case IssueTask():
                    self.counts.tasks += 1
                case AcceptUpdate():
                    self.counts.updates += 1
                case DiscardMessage():
                    self.counts.rejected += 1
                case CloseTask():
                    self.counts.rejected += action.attempt > 0
                    self._machines[action.client_id].cancel(action.task_id)
                case CloseEvaluation():
                    self._machines[action.client_id].cancel(action.task_id)
                case AcceptEvaluation():
                    pass
        for summary in written.summaries.values():
            self._on_progress(summary.version, self.clock.seconds)
            self._measure(summary.version, summary.phase)

    def _measure(self, version: int, phase: int) -> None:
        """Measure a version if it is due: every so many, and the last one."""
        every = self._config.measure_every
        is_last = version == self._plan.total_versions
        if not every or (version % every and not is_last):
            return
        tensors = self._run.versions.read(version)
        loss, metrics = self._heldout.measure(version, tensors, phase)
        measurement = Measurement(
            version,
            self.clock.seconds,
            loss,
            metrics,
            self.counts.updates,
            self.counts.tasks,
            self.counts.bytes_up,
            self.counts.bytes_down,
        )
        self.measured.append(measurement)
        append_measurement(self._run.directory, measurement)
        target = self._config.target_loss
        if target is not None and loss <= target and not self.stop_reason:
            self.stop_reason = f"the target loss of {target:g} is reached"
            self.clock.after(0.0, lambda: self._end(self.stop_reason))
