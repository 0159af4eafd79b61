"""A run directory: made once, whole or not at all, and opened again by `--resume`.

runs/NAME/
    federation.toml          the configuration, without addresses and credentials
    run.db                   the journal
    clients/                 one file of rows per client, the held-out rows, the skew
    versions/000000/ …       PEFT adapter directories
    spool/                   updates between arrival and commit
    progress.jsonl           a line per version
    client_metrics.jsonl     a line per update
    samples.jsonl            a line per held-out row and version that was asked about it
    report/                  written at the end
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from common.config import loader, toml_writer
from common.config.config import FederationConfig, SamplesConfig
from common.config.loader import apply_offline
from common.errors import ConfigError, RunError
from common.files import sync_path, sync_tree
from common.protocol.fields import RowKind
from common.protocol.naming import LOCAL_SITE, new_run_id
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from common.protocol.versions import VersionSummary
from common.software import software_version
from coordinator.core.state import Client, Plan
from coordinator.core.tasks import TaskTemplate
from coordinator.storage.journal import Journal
from coordinator.storage.versions import Versions

StartMode = Literal[
    "start", "resume", "new", "continue"
]  # the last: resume what is there, or start
_OF_A_START = ("broker", "store", "operations", "offline")
_MAY_CHANGE = {"run.dir", "run.keep_versions", "data.dir"} | {
    f"samples.{key}" for key in SamplesConfig.model_fields
}


@dataclass(frozen=True)
class PreparedRun:
    """What a run begins with: the base model, the clients' rows and the adapter of version 0."""

    base: BaseRef
    base_path: Path
    rows: Mapping[str, Mapping[RowKind, int]]  # training rows by client id and kind
    adapter: Tensors
    adapter_config: Mapping[str, Any]
    labels: tuple[str, ...] = ()  # class names, where the run classifies
    # What became of each source's rows, by kind.
    sources: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Run:
    """An opened run directory."""

    directory: Path
    name: str
    run_id: str
    plan: Plan
    template: TaskTemplate
    keep_versions: int
    samples: SamplesConfig
    sources: Mapping[str, Any]
    journal: Journal
    versions: Versions
    base_path: Path
    software: str


def check_mode(config: FederationConfig, mode: StartMode) -> None:
    """Refuse, before anything costly is done, to start over an existing run or resume none.

    Raises:
        RunError: The directory exists and `mode` is `start`, or it does not and `mode` is `resume`.
    """
    directory = config.run.path
    if mode == "start" and directory.exists():
        raise RunError(
            f"the run directory {directory} exists",
            "--resume continues that run, --new sets it aside and starts over",
        )
    wanted = mode == "resume" or (mode == "continue" and directory.exists())
    if wanted and not run_exists(config):
        raise RunError(f"{directory} holds no run to resume", "start one without --resume")


def run_exists(config: FederationConfig) -> bool:
    """Whether the run that the configuration names is there, to be continued."""
    return (config.run.path / "run.db").exists()


def create_run(
    config: FederationConfig, prepare: Callable[[Path], PreparedRun], now: float
) -> None:
    """Make the run directory: prepared beside its place, then renamed into it.

    Args:
        config: Of the run.
        prepare: Writes `clients/` into the directory it is given, and says what the run begins
            with.
        now: Seconds since the epoch.
    """
    directory = config.run.path
    partial = _partial_directory(config)
    remove_partial_run(config)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{partial}: {error.strerror}", "set run.dir to a writable place") from None
    try:
        _fill(partial, config, prepare(partial), now)
    except BaseException:
        remove_partial_run(config)
        raise
    partial.rename(directory)
    sync_path(directory.parent)


def remove_partial_run(config: FederationConfig) -> None:
    """Remove what an unfinished `create_run` has left: it holds private rows."""
    shutil.rmtree(_partial_directory(config), ignore_errors=True)


def _partial_directory(config: FederationConfig) -> Path:
    directory = config.run.path
    return directory.with_name(f".{directory.name}.partial")


def _fill(partial: Path, config: FederationConfig, origin: PreparedRun, now: float) -> None:
    """Version 0 and the journal, beside the rows."""
    sync_tree(partial)
    (partial / "federation.toml").write_text(_as_run(config), encoding="utf-8")
    versions = Versions(partial / "versions", origin.adapter_config, config.codec.adapter)
    ref = versions.stage(0, origin.adapter)
    journal = Journal.create(partial / "run.db", _meta(config, origin))
    journal.put_version(
        VersionSummary(version=0, phase=0, at=now, sha256=ref.sha256, nbytes=ref.nbytes)
    )
    versions.place(0, ref.sha256)
    journal.close()
    sync_path(partial)


def set_aside(config: FederationConfig) -> str | None:
    """Move an existing run out of the way; returns its id, whose queues can go."""
    directory = config.run.path
    if not directory.exists():
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = directory.with_name(f"{directory.name}.old-{stamp}-{secrets.token_hex(2)}")
    directory.rename(aside)
    if not (aside / "run.db").exists():
        return None
    journal = Journal.open(aside / "run.db")
    try:
        return journal.meta().get("run_id")
    finally:
        journal.close()


def open_run(config: FederationConfig, find_base: Callable[[BaseRef], Path]) -> Run:
    """Open the run directory that the configuration names.

    Args:
        config: Must be that of the run, but for addresses.
        find_base: The directory of the base model.

    Raises:
        ConfigError: A key has another value than the run began with.
        RunError: The directory holds no run.
    """
    directory = config.run.path
    journal = Journal.open(directory / "run.db")
    meta = journal.meta()
    config = with_recorded_offline_choice(config, directory)
    _same(config, directory)
    base = BaseRef.model_validate_json(meta["base"])
    rows: dict[str, dict[RowKind, int]] = json.loads(meta["clients"])
    own_id = meta["run_id"]
    versions = Versions(
        directory / "versions", json.loads(meta["adapter_config"]), config.codec.adapter
    )
    versions.roll_forward(
        journal.version_digests()
    )  # the report may be written without a new start
    return Run(
        directory=directory,
        name=config.run.name,
        run_id=own_id,
        plan=build_plan(config, rows),
        template=TaskTemplate(
            run=own_id,
            base=base,
            lora=config.model.lora,
            labels=tuple(json.loads(meta["labels"])),
            max_length=config.model.max_length,
            update_codec=config.codec.update,
            deadline_s=config.schedule.task_deadline_s,
        ),
        keep_versions=config.run.keep_versions,
        samples=config.samples,
        sources=json.loads(meta["sources"]),
        journal=journal,
        versions=versions,
        base_path=find_base(base),
        software=software_version(),
    )


def build_plan(config: FederationConfig, rows: Mapping[str, Mapping[RowKind, int]]) -> Plan:
    """The plan of a configuration whose clients hold so many training rows of each kind."""
    clients = {name: Client(name, LOCAL_SITE, own) for name, own in rows.items()}
    return Plan(config.phase, config.schedule, config.aggregation, MappingProxyType(clients))


def saved_config(directory: Path) -> FederationConfig:
    """The configuration of a run directory, with default addresses.

    Raises:
        RunError: It holds no run.
    """
    path = directory / "federation.toml"
    if not path.exists():
        raise RunError(f"{directory} holds no run", "name a directory under runs/")
    return loader.load(path, {})


def with_recorded_offline_choice(config: FederationConfig, directory: Path) -> FederationConfig:
    """The configuration with what was decided about the hub when the run began.

    The run directory keeps the outcome. If that has every value of [offline] which is not the
    configuration's own, the run began without the hub, and stays so.
    """
    if not config.offline:
        return config
    without = apply_offline(config)
    given, changed = _keys(config), _keys(without)
    saved = _keys(saved_config(directory))
    decisive = [key for key, value in changed.items() if given.get(key) != value]
    began = decisive and all(saved.get(key) == changed[key] for key in decisive)
    return without if began else config


def _meta(config: FederationConfig, origin: PreparedRun) -> dict[str, str]:
    return {
        "run_id": new_run_id(config.run.name),
        "software": software_version(),
        "base": origin.base.model_dump_json(),
        "clients": json.dumps({name: dict(own) for name, own in origin.rows.items()}),
        "labels": json.dumps(origin.labels),
        "sources": json.dumps(dict(origin.sources)),
        "adapter_config": json.dumps(dict(origin.adapter_config)),
    }


def _as_run(config: FederationConfig) -> str:
    """Without addresses: they may carry passwords, and may change between starts.

    Nor with [offline]: whether that holds is decided by now.
    """
    kept = config.model_copy(update={name: type(getattr(config, name))() for name in _OF_A_START})
    return toml_writer.dump(kept)


def _same(config: FederationConfig, directory: Path) -> None:
    saved, given = _keys(saved_config(directory)), _keys(config)
    for key in given | saved:  # a phase may be missing on either side
        if saved.get(key) != given.get(key):
            raise ConfigError(
                f"{key} is {given.get(key)!r}, but {directory} began with {saved.get(key)!r}",
                "set it back to resume, or start over with --new",
            )


def _keys(config: FederationConfig) -> dict[str, Any]:
    """Every key that stays what it was when the run began."""
    flat = _flat(config.model_dump(mode="json", exclude=set(_OF_A_START)))
    return {key: value for key, value in flat.items() if key not in _MAY_CHANGE}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        pairs = ((f"{prefix}{key}", inner) for key, inner in value.items())
    elif isinstance(value, list):
        pairs = ((f"{prefix}{i}", inner) for i, inner in enumerate(value))
    else:
        return {prefix.rstrip("."): value}
    return {k: v for key, inner in pairs for k, v in _flat(inner, f"{key}.").items()}
