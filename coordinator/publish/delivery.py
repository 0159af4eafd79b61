"""Delivery of a finished run to its sites: the final and the best version, with their cards.

It is published before the end of the run, so that a worker that reads the end finds it. It stays in
the store for a week (`common/store/store.py: DELIVERY_TTL_S`), for sites that are away; a later
start of the coordinator publishes it again. `worker/delivery/receiver.py` is the reader.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event as Flag
from typing import Any

from pydantic import ValidationError

from common.clock import Clock
from common.errors import FcclError, StoreError
from common.evaluation.federated import best_version, federated_evaluations
from common.protocol import codec
from common.protocol.delivery import (
    MAX_CARD,
    AdapterModules,
    DeliveredAdapter,
    DeliveredCard,
    DeliveredVersion,
    Delivery,
    pack_delivery,
)
from common.protocol.kinds import EventKind
from common.run_directory.recorded_run import RecordedRun, read_run
from common.store.store import DELIVERY_TTL_S, Store
from coordinator.core.events import EventLevel, LogEvent, log_event
from coordinator.storage.run import Run

CardWriter = Callable[[Run, Sequence[int]], Sequence[str]]
"""Returns the cards of versions; it may raise any `FcclError`."""
TIMEOUT_S = 30.0
"""Seconds for which a store that does not answer is tried again."""
RETRY_S = 1.0


class DeliveryPublisher:
    """Publisher of one run's delivery."""

    def __init__(self, run: Run, store: Store, clock: Clock, write_cards: CardWriter) -> None:
        self._run, self._store, self._clock = run, store, clock
        self._write_cards = write_cards

    def publish(self, stop: Flag) -> list[LogEvent]:
        """Publish the newest and the best version, and return events; raise nothing."""
        try:
            recorded = read_run(self._run.directory)
            versions = choose_versions(recorded)
            cards, events = self._cards(versions)
            self._put(recorded, versions, cards, stop)
        except (FcclError, ValidationError) as error:
            return [_event("warning", f"the result cannot be delivered to the sites: {error}")]
        days = DELIVERY_TTL_S // 86_400
        return [*events, _event("info", f"{_describe(versions)} for the sites, for {days} days")]

    def _cards(self, versions: Sequence[int]) -> tuple[Mapping[int, str], list[LogEvent]]:
        """Return the cards by version; without them the delivery is still of use."""
        each = tuple(dict.fromkeys(versions))
        try:
            return dict(zip(each, self._write_cards(self._run, each), strict=True)), []
        except FcclError as error:
            return {}, [_event("warning", f"the sites get no model card: {error}")]

    def _put(
        self,
        recorded: RecordedRun,
        versions: Sequence[int],
        cards: Mapping[int, str],
        stop: Flag,
    ) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                delivered = [self._put_version(each, cards.get(each)) for each in versions]
                delivery = Delivery(
                    run=recorded.run_id,
                    at=self._clock(),
                    objective=recorded.config.phase[0].objective,
                    base=recorded.base,
                    lora=recorded.config.model.lora,
                    labels=recorded.labels,
                    prompt=recorded.prompt,
                    final=delivered[0],
                    best=delivered[1] if len(delivered) > 1 else None,
                )
                frame = pack_delivery(delivery, adapter_modules(recorded))
                return self._store.set_delivery(recorded.run_id, frame)
            except StoreError:
                if time.monotonic() >= deadline or stop.wait(RETRY_S):
                    raise

    def _put_version(self, version: int, card: str | None) -> DeliveredVersion:
        frame = self._run.versions.complete_frame(version)
        self._store.put_blob(self._run.run_id, frame, DELIVERY_TTL_S)
        adapter = DeliveredAdapter(sha256=codec.digest(frame), nbytes=len(frame))
        text = b"" if card is None else card.encode()
        if not 0 < len(text) <= MAX_CARD:
            return DeliveredVersion(version=version, adapter=adapter)
        self._store.put_blob(self._run.run_id, text, DELIVERY_TTL_S)
        written = DeliveredCard(sha256=codec.digest(text), nbytes=len(text))
        return DeliveredVersion(version=version, adapter=adapter, card=written)


def choose_versions(run: RecordedRun) -> tuple[int, ...]:
    """Return the newest version, followed by the best one if the sites evaluated any.

    Raises:
        RunError: There is no version on the disk.
    """
    newest = run.choose_version(None)
    best = best_version(federated_evaluations(run.evaluations), len(run.config.phase) - 1)
    return (newest, best) if best is not None and best in run.versions_on_disk() else (newest,)


def adapter_modules(run: RecordedRun) -> AdapterModules:
    """Return the modules that the adapter of a run changes."""
    config = run.adapter_config
    if run.config.model.lora is None:
        return AdapterModules()
    return AdapterModules(
        target_modules=_names(config.get("target_modules")),
        exclude_modules=_names(config.get("exclude_modules")),
        modules_to_save=_names(config.get("modules_to_save")),
        task_type=config.get("task_type"),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
    )


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _describe(versions: Sequence[int]) -> str:
    if len(versions) == 1:
        return f"version {versions[0]} is in the store"
    newest, best = versions
    if newest == best:
        return f"version {newest}, which is also the best one, is in the store"
    return f"version {newest} and the best one, {best}, are in the store"


def _event(level: EventLevel, text: str) -> LogEvent:
    return log_event(level, EventKind.DELIVERY, text)
