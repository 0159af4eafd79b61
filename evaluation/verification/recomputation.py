"""Recomputation of versions from the kept updates, with the coordinator's own aggregation.

Version 0 is on the disk; each other version follows from its predecessor, so that versions that
were removed are recomputed, too. Memory holds one version and one update; under `product`, it also
holds the removed versions from which updates of later versions were trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from common.disk_errors import disk_errors
from common.errors import FcclError, RunError, WireError
from common.protocol import codec
from common.protocol.layout import TensorLayout
from common.protocol.tensors import Array, Tensors
from common.protocol.updates import Update
from common.protocol.versions import VersionSummary
from common.protocol.wire import unpack
from common.run_directory.update_journal import JournaledUpdate, UpdateJournal
from common.run_directory.version_digests import VersionDigests
from common.run_directory.version_files import STATE_FILE, file_names, read_tensors
from coordinator.aggregation.coefficients import server_rate
from coordinator.aggregation.robust.similarity import TensorReader
from coordinator.aggregation.rules.registry import make_rule
from coordinator.aggregation.rules.rule import Result, Step, WeightedUpdate
from coordinator.aggregation.update_cache import UpdateCache, cached_coefficients
from coordinator.storage.kept_updates import DIRECTORY
from coordinator.storage.spool import decode_each_delta
from coordinator.storage.versions import STAGED, encode_state

FileState = Literal["same", "changed", "absent"]


@dataclass(frozen=True)
class Recomputed:
    """Result for one version.

    Attributes:
        file: Whether the version's own file has the content that the journal says.
        equal: Whether the version that was recomputed has it; None if it was not recomputed.
        reason: Why it was not recomputed.
        problems: What is wrong.
    """

    file: FileState
    equal: bool | None = None
    reason: str = ""
    problems: tuple[str, ...] = ()


class Recomputation:
    """Recomputation of the versions of one run, one after the other."""

    def __init__(self, journal: UpdateJournal) -> None:
        self._journal = journal
        self._weights, _ = file_names(journal.adapter_config)
        self._codec = journal.config.codec.adapter
        schema1 = journal.layout is None
        self._digests = VersionDigests(self._codec, journal.frozen, schema1)
        self._bases = _last_uses(journal)
        self._kept: dict[int, Tensors] = {}  # versions that later ones need, if they are not stored
        self._rule = make_rule(journal.config)
        self._state: tuple[int, Tensors] = (0, {})
        self._updates = {update.task_id: update for update in journal.updates}
        self._caches = journal.config.aggregation.cache_updates
        self._cache = UpdateCache[JournaledUpdate](journal.config.schedule.max_staleness)

    def versions(self) -> Iterator[tuple[int, Recomputed]]:
        """Yield the number and the result of every version."""
        previous: Tensors | None = None
        for number, summary in sorted(self._journal.versions.items()):
            if number - 1 not in self._journal.versions:
                previous = None
            on_disk, file, problems = self._read(number, summary)
            result, made = Recomputed(file, problems=tuple(problems)), None
            if number:
                result, made = self._recompute(number, summary, previous, result)
            if self._caches:
                applied = [self._updates.get(update.task_id) for update in summary.updates]
                self._cache.apply(number, summary.phase, [each for each in applied if each])
            yield number, result
            previous = made if result.equal else on_disk
            if on_disk is None and made is not None and self._bases.get(number, 0) > number + 1:
                self._kept[number] = made
            self._kept = {
                base: kept for base, kept in self._kept.items() if self._bases[base] > number
            }

    def _read(
        self, number: int, summary: VersionSummary
    ) -> tuple[Tensors | None, FileState, list[str]]:
        """Return the tensors of a version if they are right, the state of its file, and problems.

        A coordinator may give the version its number, or remove it, meanwhile.
        """
        versions = self._journal.directory / "versions"
        for folder in (f"{number:06d}", f"{STAGED}{summary.sha256}", f"{number:06d}"):
            path = versions / folder / self._weights
            try:
                tensors = read_tensors(path)
            except RunError as error:
                if path.exists():
                    return None, "changed", [error.what]
                continue
            if self._digests.are_right(number, tensors, summary.sha256):
                return tensors, "same", []
            found = self._digests.digest(number, tensors)
            problem = f"{path} has the digest {found[:12]} instead of {summary.sha256[:12]}"
            return None, "changed", [problem]
        return None, "absent", []

    def _recompute(
        self, number: int, summary: VersionSummary, previous: Tensors | None, result: Recomputed
    ) -> tuple[Recomputed, Tensors | None]:
        """Return the result, and the tensors that were recomputed."""
        reason = self._missing_updates(summary) or self._missing_bases(number, summary)
        if not reason and previous is None:
            reason = "the version before it is neither on the disk nor recomputed"
        if reason or previous is None:
            return Recomputed(result.file, None, reason, result.problems), None
        try:
            made = self._apply_rule(summary, previous)
            layout, data = codec.encode(self._codec, made.tensors)
        except (FcclError, ValueError) as error:
            problem = error.what if isinstance(error, FcclError) else str(error)
            problems = (*result.problems, f"it cannot be recomputed: {problem}")
            return Recomputed(result.file, False, problems=problems), None
        tensors = codec.decode(self._codec, layout, data)
        found = self._digests.digest(number, tensors)
        state = encode_state(made.state)
        if summary.state_sha256 != (codec.digest(state) if state else None):
            problems = (*result.problems, "the server's state is not what its updates make it")
            return Recomputed(result.file, False, problems=problems), None
        marked = frozenset(update.task_id for update in summary.updates if update.left_out)
        if marked != made.left_out:
            names = ", ".join(sorted(marked ^ made.left_out))
            problems = (*result.problems, f"whether the rule has left out {names} is not recorded")
            return Recomputed(result.file, False, problems=problems), None
        if found == summary.sha256:
            self._state = number, made.state
            return Recomputed(result.file, True, problems=result.problems), tensors
        problem = (
            f"the sum of its updates has the digest {found[:12]}, the journal says"
            f" {summary.sha256[:12]}"
        )
        return Recomputed(result.file, False, problems=(*result.problems, problem)), None

    def _missing_updates(self, summary: VersionSummary) -> str:
        """Return why the updates of a version, or its noise, are not there; empty if all are."""
        private = self._journal.config.privacy.enabled
        if private and summary.version not in self._journal.noise_seeds:
            return "its noise was not kept"
        cached = self._cache.before(summary.version, summary.phase)
        for update in (*(self._updates.get(each.task_id) for each in summary.updates), *cached):
            if update is None or update.kept is None:
                return "its updates were not kept"
            if self._file(update) is None:
                return f"{DIRECTORY}/{update.kept} is missing"
        return ""

    def _missing_bases(self, number: int, summary: VersionSummary) -> str:
        """Return which version the rule needs, besides the newest, and cannot read."""
        needed = {each.base_version for each in summary.updates} - {number - 1, *self._kept}
        for base in sorted(needed & self._bases.keys()):
            if self._read(base, self._journal.versions[base])[0] is None:
                return (
                    f"version {base}, from which it has updates, is neither stored nor recomputed"
                )
        return ""

    def _apply_rule(self, summary: VersionSummary, previous: Tensors) -> Result:
        layout = TensorLayout.of(previous)
        updates = [
            WeightedUpdate(
                each.task_id,
                each.client_id,
                each.base_version,
                each.coefficient,
                self._reader(self._updates[each.task_id], layout),
                each.weight,
                each.staleness_factor * each.participation_factor * each.clip,
            )
            for each in summary.updates
        ]
        updates += self._cached(summary, layout)
        begins_phase = self._journal.versions[summary.version - 1].phase != summary.phase
        state = {} if begins_phase else self._read_state(summary.version - 1)
        seed = self._journal.noise_seeds.get(summary.version, b"")
        step = Step(summary.version, dict(previous), state, updates, self._read_version, seed)
        return self._rule.apply(step)

    def _cached(self, summary: VersionSummary, layout: TensorLayout) -> list[WeightedUpdate]:
        """Return the earlier updates that count again, with `aggregation.cache_updates`."""
        cached = self._cache.before(summary.version, summary.phase)
        weights = [(each.client_id, each.weight) for each in summary.updates]
        rate = server_rate(self._journal.config.aggregation)
        return [
            WeightedUpdate(
                each.task_id,
                each.client_id,
                each.base_version,
                coefficient,
                self._reader(each, layout),
            )
            for each, coefficient in zip(
                cached, cached_coefficients(weights, cached, rate), strict=True
            )
        ]

    def _reader(self, update: JournaledUpdate, layout: TensorLayout) -> TensorReader:
        return partial(self._tensors, update, self._rule.update_layout(layout, update.client_id))

    def _tensors(
        self, update: JournaledUpdate, layout: TensorLayout
    ) -> Iterator[tuple[str, Array]]:
        header, data = self._frame_of(update)
        yield from decode_each_delta(header, data, layout)

    def _read_state(self, number: int) -> Tensors:
        """Return the server's state of a version, from its file unless it was just recomputed.

        Raises:
            WireError: It is not the one that the journal names.
            RunError: It is neither on the disk nor recomputed.
        """
        known, state = self._state
        if known == number:
            return state
        expected = self._journal.versions[number].state_sha256
        if expected is None:
            return {}
        path = self._journal.directory / "versions" / f"{number:06d}" / STATE_FILE
        with disk_errors(path):
            data = path.read_bytes()
        if codec.digest(data) != expected:
            raise WireError(f"{path} is not the state that the journal names")
        return read_tensors(path)

    def _read_version(self, number: int) -> Tensors:
        """Return an earlier version, which an update of a mixed-rank run began with."""
        if number in self._kept:
            return dict(self._kept[number])
        tensors, _, problems = self._read(number, self._journal.versions[number])
        if tensors is None:
            raise RunError(f"version {number} is needed: {' '.join(problems) or 'it is gone'}")
        return tensors

    def _file(self, update: JournaledUpdate) -> Path | None:
        """Return the file of a kept update; a coordinator may move it from the spool meanwhile."""
        kept = self._journal.directory / DIRECTORY / str(update.kept)
        places = (kept, self._journal.directory / "spool" / update.upload, kept)
        return next((path for path in places if path.is_file()), None)

    def _frame_of(self, update: JournaledUpdate) -> tuple[Update, memoryview]:
        try:
            frame = self._read_update(update)
        except OSError as error:
            raise RunError(f"{DIRECTORY}/{update.kept}: {error.strerror}") from None
        if codec.digest(frame) != update.sha256:
            raise WireError(f"the update of {update.task_id} was changed on the disk")
        header, data = unpack(Update, frame)
        if header.task_id != update.task_id or header.client_id != update.client_id:
            raise WireError(f"the update of {update.task_id} is of another task or client")
        return header, data

    def _read_update(self, update: JournaledUpdate) -> bytes:
        for _ in range(2):  # it may be moved between the two calls, once
            path = self._file(update)
            with contextlib.suppress(FileNotFoundError):
                return path.read_bytes() if path is not None else b""
        return b""


def _last_uses(journal: UpdateJournal) -> dict[int, int]:
    """Return the last version that needs each version which updates were trained from.

    Only rules that read them (`Step.read_version`) have any.
    """
    if journal.config.aggregation.rule in ("factor", "ffa"):
        return {}
    return {
        update.base_version: number
        for number, summary in sorted(journal.versions.items())
        for update in summary.updates
    }
