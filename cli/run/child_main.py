"""Program of a child process of `fccl coordinator`: `python -m cli.run.child_main TASK`.

The first line of standard input is the request; further lines are commands to the task. Standard
output is for messages alone: what libraries print becomes a message too (`cli/jsonlog.py`). The end
of standard input means that the coordinator closes the child or has died: the task is then
interrupted as by a Ctrl-C, so that it can clean up.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import expected_errors, jsonlog
from cli.child_messages import MessageKind, MessageOutput
from cli.exit_codes import INTERRUPTED
from cli.jsonlog import JsonLog
from common.errors import FcclError

INTERRUPTED_S = 3.0  # for an interrupted task to clean up
POLL_S = 0.2  # between reads of commands and answers
TRACKER_POLL_S = 0.5  # between looks for new figures

Fields = dict[str, Any]


class Channel:
    """The two pipes of a child process: one for requests and commands, one for messages."""

    def __init__(self, output: MessageOutput) -> None:
        self.output = output
        self._lines: queue.Queue[Fields] = queue.Queue()

    def read_lines(self, main_thread: int) -> None:
        """Queue lines of standard input; at its end, interrupt the main thread."""
        # os.read: an interpreter that exits while a thread waits for sys.stdin aborts.
        rest = b""
        while block := os.read(0, 4096):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                self._lines.put(json.loads(line))
        signal.pthread_kill(main_thread, signal.SIGINT)
        time.sleep(INTERRUPTED_S)
        os._exit(INTERRUPTED)

    def receive(self, timeout: float | None = None) -> Fields | None:
        """Return the next line; None if there is none within `timeout` seconds."""
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return None


def main(task: str) -> None:
    """Perform a task and end the process."""
    output = MessageOutput(_take_over_streams())
    channel = Channel(output)
    warnings.filterwarnings("ignore", category=FutureWarning)  # as in `cli.main`
    signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup it would be ignored
    threading.Thread(
        target=channel.read_lines, args=(threading.get_ident(),), name="stdin", daemon=True
    ).start()
    code = 0
    try:
        request = channel.receive()
        assert request is not None
        output.send(MessageKind.RESULT, result=TASKS[task](request, channel))
    except FcclError as error:
        _send_error(output, error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in `_send_error`
        if (expected := expected_errors.translate(error)) is not None:
            _send_error(output, expected)
        else:
            jsonlog.write_crash(error)
            code = 1
    # Not sys.exit: threads and exit handlers of libraries can take seconds, or hang.
    os._exit(code)


def _send_error(output: MessageOutput, error: FcclError) -> None:
    # The coordinator closes a child that reports an error: the exit must not be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fields = {"error": type(error).__name__, "what": error.what, "remedy": error.remedy}
    output.send(MessageKind.ERROR, str(error), "error", **fields)


def _take_over_streams() -> JsonLog:
    """Keep standard output for messages; output of C code goes to standard error instead."""
    messages = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = os.fdopen(messages, "w", encoding="utf-8")
    return jsonlog.install("child")


# Tasks. They import torch when they are called: a child that is closed early ends at once.


def _prepare(request: Fields, channel: Channel) -> str:
    from cli.run.local_tasks import LocalTasks
    from common.config.config import FederationConfig

    config = FederationConfig.model_validate(request["config"])
    return str(LocalTasks(channel.output.progress, channel.output.print).prepare_run(config))


def _find_base_model(request: Fields, channel: Channel) -> str:
    from cli.run.local_tasks import LocalTasks
    from common.protocol.tasks import BaseRef

    base = BaseRef.model_validate(request["base"])
    return str(LocalTasks(channel.output.progress, channel.output.print).find_base_model(base))


def _write_cards(request: Fields, channel: Channel) -> list[str]:
    from cli.run.local_tasks import write_cards

    directory, base_path = Path(request["directory"]), Path(request["base_path"])
    return write_cards(directory, base_path, request["versions"])


def _write_report(request: Fields, channel: Channel) -> str:
    from cli.run.local_tasks import write_final_report

    directory, base_path = Path(request["directory"]), Path(request["base_path"])
    return str(write_final_report(directory, base_path, channel.output.progress))


def _sample(request: Fields, channel: Channel) -> None:
    """Let versions answer held-out rows until there are no more offers.

    Commands are `{"offer": VERSION}` and `{"finish": true}`; messages are `sample` and `note`.
    """
    from common.config.config import SamplesConfig
    from common.run_directory.recorded_run import read_run

    run = read_run(Path(request["directory"]))
    settings = SamplesConfig.model_validate(request["settings"])
    from evaluation.live_samples import LiveSampler

    sampler = LiveSampler(run, Path(request["base_path"]), settings, time.time)
    sampler.start(request["version"], run.samples)
    running = True
    while running:
        running = sampler.running  # read first: its last answers come before its end
        answers, notes = sampler.collect()
        for answer in answers:
            channel.output.send(MessageKind.SAMPLE, sample=answer.fields())
        for note in notes:
            channel.output.send(MessageKind.NOTE, note.text, note.level)
        command = channel.receive(POLL_S) if running else None
        if command and "offer" in command:
            sampler.offer(command["offer"])
        elif command:
            sampler.end_offers()


def _score(request: Fields, channel: Channel) -> None:
    """Score updates until the process is ended.

    Commands are `{"score": REQUEST}`; messages are `score` and `note`.
    """
    from dataclasses import asdict

    from common.run_directory.recorded_run import read_run
    from coordinator.scores_source import ScoreRequest
    from evaluation.update_scorer import UpdateScorer

    scorer = UpdateScorer(read_run(Path(request["directory"])), Path(request["base_path"]))
    scorer.start()
    while True:
        scores, events = scorer.collect()
        for event in events:  # before the scores that it explains
            channel.output.send(MessageKind.NOTE, event.text, event.level)
        for score in scores:
            channel.output.send(MessageKind.SCORE, score=asdict(score))
        if (command := channel.receive(POLL_S)) is not None:
            scorer.request([ScoreRequest(**command["score"])])


def _check_plugins(request: Fields, channel: Channel) -> None:
    from cli.run.plugin_tasks import check_plugins

    check_plugins(request["trackers"], request["evaluators"], request["objectives"])


def _track(request: Fields, channel: Channel) -> None:
    """Let a tracker follow the run; the command `{"finish": OUTCOME}` ends it."""
    from cli.run.plugin_tasks import track

    name, options = request["name"], request["options"]
    track(Path(request["directory"]), name, options, lambda: channel.receive(TRACKER_POLL_S))


def _evaluate(request: Fields, channel: Channel) -> None:
    """Let plug-ins evaluate versions; the command `{"finish": OUTCOME}` ends it.

    Messages are `figures` and `note`.
    """
    from cli.run.plugin_tasks import evaluate

    directory, base_path = Path(request["directory"]), Path(request["base_path"])
    evaluate(
        directory,
        base_path,
        request["evaluators"],
        lambda: channel.receive(POLL_S),
        on_figures=lambda each: channel.output.send(MessageKind.FIGURES, figures=each.fields()),
        on_failure=lambda text: channel.output.send(MessageKind.NOTE, text, "warning"),
    )


TASKS: dict[str, Callable[[Fields, Channel], Any]] = {
    "prepare": _prepare,
    "base model": _find_base_model,
    "cards": _write_cards,
    "report": _write_report,
    "samples": _sample,
    "scores": _score,
    "check plug-ins": _check_plugins,
    "tracker": _track,
    "evaluators": _evaluate,
}

if __name__ == "__main__":
    main(sys.argv[1])
