"""Live samples are stored and published, and delay nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from common.protocol.kinds import EventKind
from common.protocol.versions import SampleAnswer
from common.store import view
from coordinator.core.events import LogEvent
from coordinator.samples_source import SamplesSource
from tests.support.polled_federation import PolledFederation, check_complete, read_field


class InstantSamples(SamplesSource):
    """Source that answers for each version immediately, and reports an error if it has one."""

    def __init__(self, error: str = "") -> None:
        self.calls: list[str] = []
        self._events = [LogEvent("warning", EventKind.SAMPLES, error)] if error else []
        self._known: set[int] = set()
        self._answers: list[SampleAnswer] = []

    def start(self, version: int, answers: Sequence[SampleAnswer]) -> None:
        self._known = {answer.version for answer in answers}
        self.offer(0)
        self.offer(version)

    def offer(self, version: int) -> None:
        if version not in self._known:
            self._known.add(version)
            fields = {"at": 1.0, "kind": "sft", "asked": "Who?", "expected": "I.", "answer": "You."}
            self._answers.append(SampleAnswer.model_validate({"version": version, **fields}))

    def collect(self) -> tuple[list[SampleAnswer], list[LogEvent]]:
        collected = self._answers, self._events
        self._answers, self._events = [], []
        return collected

    def finish(self, stop: threading.Event) -> None:
        self.calls.append("finish")

    def close(self) -> None:
        self.calls.append("close")


def test_samples_are_stored_and_published_and_published_again_after_a_restart(
    federation: PolledFederation,
) -> None:
    federation.samples = InstantSamples()
    check_complete(federation, federation.serve())
    seen = view.read(federation.store, "r")
    versions = [sample.version for sample in seen.samples]
    assert versions == [0, 1, 2, 3]
    assert read_field(federation, "samples.jsonl", "version") == versions
    assert json.loads(json.dumps(seen.fields()))["samples"][0]["answer"] == "You."
    federation.redis.client.flushall()
    federation.samples = InstantSamples()
    federation.serve()
    assert view.read(federation.store, "r").samples == seen.samples
    assert read_field(federation, "samples.jsonl", "version") == versions


def test_a_complete_run_waits_for_its_samples_and_a_stopped_one_does_not(
    federation: PolledFederation,
) -> None:
    federation.samples = stopped = InstantSamples()
    federation.stop.set()
    assert not federation.serve().complete
    assert stopped.calls == ["close"]
    federation.samples = complete = InstantSamples()
    federation.stop.clear()
    assert federation.serve().complete
    assert complete.calls == ["finish", "close"]


def test_an_error_of_the_samples_is_an_event_and_the_run_continues(
    federation: PolledFederation,
) -> None:
    federation.samples = InstantSamples("no room")
    check_complete(federation, federation.serve())
    [warning] = [event for event in federation.events if event.level == "warning"]
    assert (warning.kind, warning.text) == ("samples", "no room")
