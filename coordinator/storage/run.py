"""Run directory: created complete or not at all, and opened again by `--resume`.

runs/NAME/
    federation.toml          configuration, without addresses and credentials
    run.db                   journal
    clients/                 a file of rows per client, the held-out rows, the skew
    versions/000000/ …       PEFT adapter directories
    spool/                   updates between arrival and commit
    updates/                 updates after their commit, with `run.keep_updates`
    progress.jsonl           a line per version
    client_metrics.jsonl     a line per update
    samples.jsonl            a line per answer of a version to a held-out prompt
    evaluator_figures.jsonl  a line per version and plug-in evaluator
    trackers/                what each tracker has logged
    report/                  written at the end
"""

from __future__ import annotations

import errno
import glob
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from common.config.config import FederationConfig, SamplesConfig
from common.disk_errors import disk_errors
from common.errors import RunError
from common.files import make_private, sync_path, sync_tree, tighten
from common.protocol.adapter_form import AdapterForm, frozen_part
from common.protocol.adapter_frame import adapter_ref
from common.protocol.fields import RowKind
from common.protocol.layout import TensorLayout
from common.protocol.naming import LOCAL_SITE, new_run_id
from common.protocol.tasks import BaseRef, ObjectivePlugin, PromptSpec, parse_frozen, parse_prompt
from common.protocol.tensors import Tensors
from common.protocol.versions import VersionSummary
from common.run_directory.journal_tables import check_supported
from common.run_directory.records import WarmStart
from common.software import software_version
from coordinator.aggregation.forms import AdapterForms, adapter_forms
from coordinator.aggregation.rules.registry import make_rule
from coordinator.aggregation.rules.rule import Rule
from coordinator.core.state import Client, EvaluationPlan, Plan
from coordinator.core.tasks import ClientTemplate, TaskTemplate
from coordinator.storage.journal import Journal
from coordinator.storage.run_config import (
    check_unchanged,
    save_config,
    with_recorded_offline_choice,
)
from coordinator.storage.versions import Versions

StartMode = Literal["start", "resume", "new", "continue"]
"""`continue` resumes an existing run and else starts one; `new` sets an existing run aside."""


@dataclass(frozen=True)
class PreparedRun:
    """Beginning of a run: the base model, the clients' rows and the adapter of version 0."""

    base: BaseRef
    base_path: Path
    rows: Mapping[str, Mapping[RowKind, int]]  # number of training rows, by client id and kind
    adapter: Tensors
    adapter_config: Mapping[str, Any]
    labels: tuple[str, ...] = ()  # class names, if the run classifies
    prompt: PromptSpec | None = None  # of a run that does not classify
    sources: Mapping[str, Any] = field(  # statistics of each data source, by kind of rows
        default_factory=lambda: MappingProxyType({})
    )
    start: WarmStart | None = None  # the adapter with which the run begins; None: a fresh one


@dataclass(frozen=True)
class Run:
    """Open run directory that one coordinator may write."""

    directory: Path
    name: str
    run_id: str
    plan: Plan
    rule: Rule
    forms: AdapterForms
    template: TaskTemplate
    keep_versions: int
    keep_updates: bool
    samples: SamplesConfig
    sources: Mapping[str, Any]
    journal: Journal
    versions: Versions
    base_path: Path
    software: str
    config: FederationConfig  # of this start


def check_mode(config: FederationConfig, mode: StartMode) -> None:
    """Check that there is a run to resume, or none to overwrite, before anything costly happens.

    Raises:
        RunError: The directory exists and `mode` is `start`; or it holds no run, and `mode` is
            `resume`, or `continue` although the directory exists.
    """
    directory = config.run.path
    if mode == "start" and directory.exists():
        raise RunError(
            f"the run directory {directory} exists",
            "--resume continues that run, --new sets it aside and starts over",
        )
    resumes = mode == "resume" or (mode == "continue" and directory.exists())
    if resumes and not run_exists(config):
        raise RunError(f"{directory} holds no run to resume", "start one without --resume")


def run_exists(config: FederationConfig) -> bool:
    return (config.run.path / "run.db").exists()


def create_run(
    config: FederationConfig, prepare: Callable[[Path], PreparedRun], now: float
) -> None:
    """Create the run directory: fill a directory beside it, then rename that.

    `prepare` writes `clients/` into the directory that it gets, and returns the rest.

    Raises:
        RunError: The directory cannot be written.
    """
    directory = config.run.path
    remove_partial_run(config)
    partial = _make_partial_directory(directory)
    try:
        with disk_errors(partial, "start again"):
            _fill(partial, config, prepare(partial), now)
            _rename(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # private rows; it is gone if all went well


def remove_partial_run(config: FederationConfig) -> None:
    """Remove the private rows that an unfinished `create_run` may have left behind."""
    directory = config.run.path
    for partial in directory.parent.glob(f"{glob.escape(_partial_prefix(directory))}*"):
        shutil.rmtree(partial, ignore_errors=True)


def _make_partial_directory(directory: Path) -> Path:
    """Make a directory that no other start uses, also none that outlives its parent for a moment.

    Raises:
        RunError: The place cannot be written.
    """
    try:
        make_private(directory.parent)
        return Path(tempfile.mkdtemp(prefix=_partial_prefix(directory), dir=directory.parent))
    except OSError as error:
        raise RunError(
            f"{directory}: {error.strerror}", "set run.dir to a writable place"
        ) from None


def _rename(partial: Path, directory: Path) -> None:
    try:
        partial.rename(directory)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise RunError(
            f"another start has made {directory} meanwhile",
            "--resume continues that run, --new sets it aside and starts over",
        ) from None
    sync_path(directory.parent)


def _partial_prefix(directory: Path) -> str:
    return f".{directory.name}.partial"


def set_aside(config: FederationConfig) -> str | None:
    """Rename an existing run directory; return the run's id, so that its queues can be deleted."""
    directory = config.run.path
    if not directory.exists():
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = directory.with_name(f"{directory.name}.old-{stamp}-{secrets.token_hex(2)}")
    with disk_errors(directory):
        directory.rename(aside)
    if not (aside / "run.db").exists():
        return None
    journal = Journal.open(aside / "run.db")
    try:
        return journal.meta().get("run_id")
    finally:
        journal.close()


def open_run(
    config: FederationConfig, find_base: Callable[[BaseRef], Path], *, durable: bool = True
) -> Run:
    """Open the run directory that the configuration names; addresses may have changed.

    Without `durable`, as for a simulated run, which starts over after a crash, no write waits for
    the disk.

    Raises:
        ConfigError: A key has another value than the run began with.
        RunError: The directory holds no run, or one of another release.
    """
    directory = config.run.path
    if directory.is_dir():
        with disk_errors(directory):
            tighten(directory)  # a run that an earlier release began
    journal = Journal.open(directory / "run.db", durable=durable)
    meta = journal.meta()
    check_supported(meta, directory)
    config = with_recorded_offline_choice(config, directory)
    check_unchanged(config, directory)
    versions = Versions(
        directory / "versions",
        json.loads(meta["adapter_config"]),
        config.codec.adapter,
        forms=(forms := adapter_forms(config)),
        schema1="layout" not in meta,
        durable=durable,
    )
    # Not only when a coordinator starts, because a report may be written without one.
    versions.roll_forward(journal.version_digests())
    base = BaseRef.model_validate_json(meta["base"])
    return Run(
        directory=directory,
        name=config.run.name,
        run_id=meta["run_id"],
        plan=build_plan(
            config,
            json.loads(meta["clients"]),
            classes=len(json.loads(meta["labels"])),
            schema1="layout" not in meta,
        ),
        rule=make_rule(config),
        template=_with_forms(_build_template(config, meta, base), forms, versions),
        forms=forms,
        keep_versions=config.run.keep_versions,
        keep_updates=config.run.keep_updates,
        samples=config.samples,
        sources=json.loads(meta["sources"]),
        journal=journal,
        versions=versions,
        base_path=find_base(base),
        software=software_version(),
        config=config,
    )


def build_plan(
    config: FederationConfig,
    rows: Mapping[str, Mapping[RowKind, int]],
    *,
    classes: int = 0,
    schema1: bool = False,
) -> Plan:
    """Return the plan of a configuration; `rows` counts each client's training rows by kind."""
    clients = {name: Client(name, LOCAL_SITE, own) for name, own in rows.items()}
    evaluation = config.evaluation
    return Plan(
        config.phase,
        config.schedule,
        config.aggregation,
        MappingProxyType(clients),
        EvaluationPlan(
            federated=config.evaluates_at_sites and not schema1,
            every=evaluation.every,
            deadline_s=evaluation.deadline_s,
            max_rows=evaluation.max_rows,
            max_length=config.model.max_length,
            classes=classes,
            available=not schema1,
        ),
        config.min_clients,
        config.privacy,
    )


def _build_template(
    config: FederationConfig, meta: Mapping[str, str], base: BaseRef
) -> TaskTemplate:
    layout = meta.get("layout")  # missing in runs of an earlier release
    measures = config.aggregation.contribution_source == "holdout"
    return TaskTemplate(
        run=meta["run_id"],
        base=base,
        lora=config.model.lora,
        labels=tuple(json.loads(meta["labels"])),
        prompt=parse_prompt(meta),
        max_length=config.model.max_length,
        update_codec=config.codec.update,
        deadline_s=config.schedule.task_deadline_s,
        layout=layout,
        precision=config.model.precision,
        holdout_budget=None if layout is None or measures else config.evaluation.budget,
        plugins={
            name: ObjectivePlugin(name=name, options=config.objectives.get(name, {}))
            for name in config.objective_plugins
        },
        frozen=parse_frozen(meta),
    )


def _with_forms(template: TaskTemplate, forms: AdapterForms, versions: Versions) -> TaskTemplate:
    """Return a template with what the aggregation rule asks of the clients."""
    clients: dict[str, ClientTemplate] = {}
    if forms.ranks and template.lora is not None:
        layout = TensorLayout.of(versions.read(0))
        by_rank = {
            rank: ClientTemplate(rank, form.lora(template.lora), form.layout(layout).digest)
            for rank in forms.lower_ranks
            for form in (AdapterForm(rank=rank),)
        }
        clients = {name: by_rank[rank] for name, rank in forms.ranks.items()}
    return replace(
        template,
        refactored=forms.refactored,
        clients=MappingProxyType(clients),
    )


def _fill(partial: Path, config: FederationConfig, prepared: PreparedRun, now: float) -> None:
    sync_tree(partial)
    save_config(config, partial)
    versions = Versions(
        partial / "versions",
        prepared.adapter_config,
        config.codec.adapter,
        forms=adapter_forms(config),
    )
    ref = versions.stage(0, prepared.adapter)
    journal = Journal.create(partial / "run.db", _meta(config, prepared))
    journal.put_version(
        VersionSummary(
            version=0, phase=0, at=now, sha256=ref.sha256, nbytes=ref.nbytes, ranked=ref.ranked
        )
    )
    versions.place(0, ref.sha256)
    journal.close()
    sync_path(partial)


def _meta(config: FederationConfig, prepared: PreparedRun) -> dict[str, str]:
    start = {"start": prepared.start.model_dump_json()} if prepared.start else {}
    frozen = None
    if adapter_forms(config).frozen:
        frozen = adapter_ref(0, config.codec.adapter, frozen_part(prepared.adapter))
    return start | {
        "run_id": new_run_id(config.run.name),
        "software": software_version(),
        "base": prepared.base.model_dump_json(),
        "clients": json.dumps({name: dict(own) for name, own in prepared.rows.items()}),
        "labels": json.dumps(prepared.labels),
        **({"prompt": prepared.prompt.model_dump_json()} if prepared.prompt else {}),
        "sources": json.dumps(dict(prepared.sources)),
        "adapter_config": json.dumps(dict(prepared.adapter_config)),
        **({"frozen": frozen.model_dump_json()} if frozen else {}),
        "layout": adapter_forms(config).common.layout(TensorLayout.of(prepared.adapter)).digest,
    }
