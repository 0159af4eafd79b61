"""Tasks of child processes: what `fccl coordinator` does with torch, outside its own process.

Each takes the request, a log for messages, and a queue of commands; its result is a JSON value.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cli.jsonlog import JsonLog
from cli.run import session
from common.config.config import FederationConfig, SamplesConfig
from common.paths import cache_dir
from common.protocol.tasks import BaseRef
from common.protocol.versions import SampleAnswer
from common.run_directory.recorded_run import read_run
from evaluation.live_samples import LiveSampler
from preparation.base_model import find_base_model
from preparation.run import create_prepared_run

POLL_S = 0.2  # from one look at commands and answers to the next

Commands = queue.Queue[dict[str, Any]]
Task = Callable[[Mapping[str, Any], JsonLog, Commands], Any]


def prepare(request: Mapping[str, Any], log: JsonLog, commands: Commands) -> str:
    """Create the run directory of a configuration; return the directory of its base model."""
    config = FederationConfig.model_validate(request["config"])
    messages = TaskMessages(log)
    create_prepared_run(config, cache_dir(), messages.progress, messages.print)
    return str(find_base_model(read_run(config.run.path).base, cache_dir(), messages.progress))


def find_model(request: Mapping[str, Any], log: JsonLog, commands: Commands) -> str:
    """Return the directory of a base model; fetch or make it if necessary."""
    base = BaseRef.model_validate(request["base"])
    return str(find_base_model(base, cache_dir(), TaskMessages(log).progress))


def report(request: Mapping[str, Any], log: JsonLog, commands: Commands) -> str:
    """Write the final report of a run; return the path of the Markdown file."""
    from learning.training.device import detect

    path = session.write_report(Path(request["directory"]), Path(request["base_path"]), detect())
    return str(path)


def samples(request: Mapping[str, Any], log: JsonLog, commands: Commands) -> None:
    """Let versions answer held-out rows until there are no more offers.

    Commands are `{"offer": VERSION}` and `{"finish": true}`. Messages are of the kinds `sample`
    and `note`.
    """
    run = read_run(Path(request["directory"]))
    settings = SamplesConfig.model_validate(request["settings"])
    known = [SampleAnswer.model_validate(fields) for fields in request["answers"]]
    sampler = LiveSampler(run, Path(request["base_path"]), settings, time.time)
    sampler.start(request["version"], known)
    running = True
    while running:
        running = sampler.running  # looked at first: its last answers come before its end
        _pass_on(sampler, log)
        try:
            command = commands.get(timeout=POLL_S)
        except queue.Empty:
            continue
        if "offer" in command:
            sampler.offer(command["offer"])
        else:
            sampler.end_offers()


def _pass_on(sampler: LiveSampler, log: JsonLog) -> None:
    """Send the answers and notes since the last call."""
    answers, notes = sampler.collect()
    for answer in answers:
        log.write("info", "sample", "", {"sample": answer.fields()})
    for note in notes:
        log.write(note.level, "note", note.text)


class TaskMessages:
    """Progress and lines of a task, as messages.

    Progress is sent once for each percent.
    """

    def __init__(self, log: JsonLog) -> None:
        self._log = log
        self._last: tuple[str, int] = ("", -1)

    def print(self, text: str) -> None:
        """Send a line."""
        self._log.write("info", "text", text)

    def progress(self, message: str, fraction: float) -> None:
        """Send the progress of something long, from 0 to 1."""
        percent = int(fraction * 100)
        if self._last != (message, percent):
            self._last = (message, percent)
            self._log.write("info", "progress", message, {"progress": fraction})


TASKS: dict[str, Task] = {
    "prepare": prepare,
    "base model": find_model,
    "report": report,
    "samples": samples,
}
