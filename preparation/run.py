"""What a run begins with: rows dealt to clients, the base model, the adapter of version 0.

First step of an update's way: `learning` makes the shards and the adapter, `coordinator/storage/run.py`
keeps them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from common.config.config import FederationConfig
from common.config.loader import apply_offline
from common.errors import ConfigError, DataError, ModelError
from common.files import write_durable
from common.protocol.fields import RowKind
from common.protocol.tasks import BaseRef
from coordinator.storage.run import PreparedRun
from learning.data import prepared_data, shards, sources
from learning.data.row_parser import COLUMN_NAMES
from learning.data.row_types import LabelledText, Row
from learning.data.rows import LoadedRows
from learning.models import base, hub, lora, objective_model
from learning.models.base import BaseModel
from learning.models.loader import load_tokenizer
from learning.objectives import registry
from learning.progress import ProgressCallback
from learning.training.batches import WIDTH_MULTIPLE

PREPARED_FILE = "data.json"
"""In a folder of prepared rows: what they were made from, and what became of the others."""
_ABOUT = (prepared_data.MANIFEST, PREPARED_FILE, "skew.txt", "skew_*.png")  # the rows, beside them
Say = Callable[[str], None]


@dataclass(frozen=True)
class PreparedRows:
    """Rows that lie ready in a folder.

    Attributes:
        folder: Of client files; see `learning.data.shards`.
        model: The base model whose tokens decided which rows fit.
        rows: Training rows by client and kind.
        labels: Class names, where the run classifies.
        sources: What became of each source's rows, by kind: `learning.data.sources.SourceSummary`.
    """

    folder: Path
    model: BaseModel
    rows: Mapping[str, Mapping[RowKind, int]]
    labels: tuple[str, ...]
    sources: Mapping[str, Any]


def origin(
    config: FederationConfig, cache: Path, report: ProgressCallback, say: Say
) -> Callable[[Path], PreparedRun]:
    """A function that prepares a run directory and says what the run begins with.

    Args:
        config: Of the run.
        cache: Folder of base models.
        report: Told of progress.
        say: Told in a line what was read and skipped.
    """
    return partial(_origin, config, cache, report, say)


def _origin(
    config: FederationConfig, cache: Path, report: ProgressCallback, say: Say, directory: Path
) -> PreparedRun:
    clients = directory / "clients"
    find = partial(resolve_base_model, config, cache, report)
    dealt = prepare_rows(config, find, Path(config.data.dir or clients), say)
    model = dealt.model
    if dealt.folder != clients:
        _copy(dealt.folder, clients)
    objective = config.phase[0].objective
    loaded = objective_model.load_for_objective(
        objective, model.path, dealt.labels, torch.device("cpu")
    )
    adapted = lora.attach(loaded.model, config.model.lora, config.run.seed)
    place = model.name if model.kind == "hub" else str(model.path)
    return PreparedRun(
        base=BaseRef(
            name=model.name, revision=model.revision, kind=model.kind, digest=model.digest
        ),
        base_path=model.path,
        rows=dealt.rows,
        labels=dealt.labels,
        sources=dealt.sources,
        adapter=lora.read_adapter(adapted),
        adapter_config=lora.adapter_config(adapted, place, model.revision),
    )


def _copy(folder: Path, clients: Path) -> None:
    """Copy prepared rows, and nothing else that lies beside them: a folder may be a whole home.

    Rows that the manifest does not name are of a preparation that was cut off, for more clients.
    """
    prepared = prepared_data.load(folder)
    rows = [*(shard.path for shard in prepared.shards), *prepared.heldout.values()]
    about = [path for form in _ABOUT for path in folder.glob(form) if path.is_file()]
    try:
        clients.mkdir()
        for path in rows + about:
            shutil.copyfile(path, clients / path.name)
    except OSError as error:
        raise DataError(
            f"the rows of {folder} cannot be copied to {clients}: {error.strerror}",
            "make room, or set run.dir to another folder",
        ) from None


def apply_offline_fallback(
    config: FederationConfig, say: Say, available: Callable[[str, str | None], bool] | None = None
) -> FederationConfig:
    """The configuration that a new run begins with: what [offline] says, if it has to be.

    Args:
        config: As it was written.
        say: Told in a line what is changed.
        available: Whether the hub has a model for us; `learning.models.hub.is_available` without.
    """
    if not config.offline or not _asks_hub(config):
        return config
    if (available or hub.is_available)(config.model.name, config.model.revision):
        return config
    changed = ", ".join(f"{key} = {value}" for key, value in config.offline.items())
    say(f"the model hub is out of reach: {changed}")
    return apply_offline(config)


def _asks_hub(config: FederationConfig) -> bool:
    """Whether the base model is the hub's, as `learning.models.base.resolve` decides it."""
    name = config.model.name
    return hub.is_hub_id(name) and not Path(name).expanduser().is_dir()


def resolve_base_model(
    config: FederationConfig, cache: Path, report: ProgressCallback
) -> BaseModel:
    """The base model that the configuration names, of the family that its objective needs."""
    family = objective_model.family_for_objective(config.phase[0].objective)
    return base.resolve(config.model.name, config.model.revision, cache, report, family)


def prepare_rows(
    config: FederationConfig, find: Callable[[], BaseModel], folder: Path, say: Say
) -> PreparedRows:
    """The clients' rows in a folder: those that lie there, if they were made for this, or new ones.

    Args:
        config: Of the run.
        find: Finds the base model. Called once the sources have been read: making or fetching a
            model takes minutes, and a mistake in the data should not take as long to be told.
        folder: Of the rows.
        say: Told in a line what was read and skipped.

    Raises:
        DataError: A source cannot be used, has too few rows, or the folder holds other rows, is
            damaged, or cannot be written.
        ConfigError: `data.columns` or `model.max_length` does not fit.
    """
    check_columns(config)
    if is_prepared(folder):
        return _found(folder, config, find())
    digests = {kind: _digest(config.data.source(kind)) for kind in config.kinds}
    read = _read(config, say)
    labels = _classes(config, read)
    model = find()
    tokenizer, described = load_tokenizer(model.path)
    check_length(config.model.max_length, described)
    kept, summaries = _usable(config, read, labels, tokenizer, say)
    found = {
        "made_for": _made_for(config, model),
        "labels": list(labels),
        "sources": summaries,
        "digests": digests,
    }
    try:
        prepared = shards.prepare_shards(
            kept,
            clients=config.data.clients,
            alpha=config.data.alpha,
            by=config.data.partition,
            seed=config.run.seed,
            heldout=config.data.heldout,
            out=folder,
        )
        write_durable(folder / PREPARED_FILE, json.dumps(found, indent=1).encode())
    except OSError as error:
        raise DataError(
            f"rows cannot be written to {folder}: {error.strerror}",
            "make room and see to its permissions, or choose another folder",
        ) from None
    return PreparedRows(folder, model, prepared.rows(), labels, summaries)


def is_prepared(folder: Path) -> bool:
    """Whether a folder was prepared to the end; otherwise its rows are dealt again."""
    # Path.is_file raises where the folder may not be looked into; writing there says so better.
    return all(os.path.isfile(folder / name) for name in (prepared_data.MANIFEST, PREPARED_FILE))  # noqa: PTH113


def _read(config: FederationConfig, say: Say) -> dict[RowKind, LoadedRows[Row]]:
    """The rows of each kind that the plan needs, as their sources have them."""
    data = config.data
    return {
        kind: sources.load_source(
            kind,
            data.source(kind),
            count=data.rows,
            seed=config.run.seed,
            columns=data.columns,
            labels=data.labels,
            on_message=say,
        )
        for kind in config.kinds
    }


def _classes(config: FederationConfig, read: Mapping[RowKind, LoadedRows[Row]]) -> tuple[str, ...]:
    """The class names, where the run classifies."""
    if "cls" not in read:
        return ()
    return sources.class_names(
        cast("tuple[LabelledText, ...]", read["cls"].rows), config.data.labels
    )


def _usable(
    config: FederationConfig,
    read: Mapping[RowKind, LoadedRows[Row]],
    labels: tuple[str, ...],
    tokenizer: PreTrainedTokenizerBase,
    say: Say,
) -> tuple[dict[RowKind, list[Row]], dict[str, Any]]:
    """The rows by kind that fit the model, and what became of the others."""
    kept: dict[RowKind, list[Row]] = {}
    summaries: dict[str, Any] = {}
    for phase in {phase.kind: phase for phase in config.phase}.values():
        kind, source = phase.kind, config.data.source(phase.kind)
        objective = registry.make_objective(phase.objective, phase.dpo, labels)
        kept[kind], summary = sources.select_usable(
            read[kind], source, objective, tokenizer, config.model.max_length
        )
        summaries[kind] = summary.fields()
        say(summary.line())
    return kept, summaries


def _made_for(config: FederationConfig, model: BaseModel) -> dict[str, Any]:
    """All that prepared rows depend on, as plain JSON values."""
    data = config.data.model_dump(mode="json", exclude={"dir", "sft", "va", "cls"})
    named = {kind: config.data.source(kind) for kind in config.kinds}
    model_keys = {"digest": model.digest, "max_length": config.model.max_length}
    return {"seed": config.run.seed, "sources": named, **data, **model_keys}


def _digest(source: str) -> str | None:
    """The digest of a source that is a file; None for one that is not, or not any more."""
    try:
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _found(folder: Path, config: FederationConfig, model: BaseModel) -> PreparedRows:
    """The rows that lie in a folder.

    Raises:
        DataError: They were made for another configuration, or from a file that has changed since,
            or one of the folder's files is damaged.
    """
    wanted = _made_for(config, model)
    try:
        found = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
        made_for, labels, summaries = found["made_for"], tuple(found["labels"]), found["sources"]
        different = [key for key in wanted if made_for.get(key) != wanted[key]]
        digests = dict(found.get("digests", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{folder / PREPARED_FILE} is damaged", "remove the folder, prepare again"
        ) from None
    if different:
        raise DataError(
            f"{folder} was prepared {_otherwise(different[0], made_for, wanted)}",
            "set it back, or prepare the rows in another folder",
        )
    for kind, source in wanted["sources"].items():
        now = _digest(source)
        if None not in (was := digests.get(kind), now) and was != now:
            raise DataError(
                f"{folder} was prepared from {source}, and that file has changed since",
                "remove the folder, or prepare the rows in another folder",
            )
    prepared = prepared_data.load(folder)
    prepared_data.check_files(prepared)
    return PreparedRows(folder, model, prepared.rows(), labels, summaries)


def _otherwise(key: str, was: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How a folder of prepared rows differs from what is wanted, in a few words."""
    if key == "digest":  # it may count other tokens, and other rows fit
        return "for another base model (model.name)"
    if key == "sources":
        return f"from {was.get(key)}, not from {wanted[key]}"
    table = {"seed": "run", "max_length": "model"}.get(key, "data")
    return f"with {table}.{key} = {was.get(key)}, not {wanted[key]}"


def check_columns(config: FederationConfig) -> None:
    """Refuse a field that no row of the plan has; each source takes those of its own kind.

    Raises:
        ConfigError: `data.columns` names one.
    """
    fields = dict.fromkeys(field for kind in config.kinds for field in COLUMN_NAMES[kind])
    if odd := [field for field in config.data.columns if field not in fields]:
        raise ConfigError(
            f"data.columns names {odd[0]!r}, which is no field of this plan's rows",
            f"their fields are {', '.join(fields)}",
        )


def check_length(max_length: int, model: PretrainedConfig) -> None:
    """Refuse sequences for which the model has no positions.

    Raises:
        ConfigError: `model.max_length` is over what the model was made for.
    """
    positions = getattr(model, "max_position_embeddings", None)
    if positions is None:
        return
    padding = getattr(model, "pad_token_id", None) or 0
    if "roberta" in str(model.model_type):
        positions -= padding + 1  # it counts its positions from there
    most = positions // WIDTH_MULTIPLE * WIDTH_MULTIPLE  # batches are padded to multiples
    if max_length > most:
        raise ConfigError(
            f"model.max_length is {max_length}, but the model has {positions} positions",
            f"set it to {most} or less",
        )


def find_base_model(
    config: FederationConfig, cache: Path, report: ProgressCallback
) -> Callable[[BaseRef], Path]:
    """A function that finds the base model of an existing run on this machine."""

    def find(wanted: BaseRef) -> Path:
        if (path := base.cached(wanted.digest, cache)) is not None:
            return path
        found = base.resolve(wanted.name, wanted.revision, cache, report)
        if found.digest != wanted.digest:
            raise ModelError(
                f"model {wanted.name} has digest {found.digest[:12]},"
                f" but the run began with {wanted.digest[:12]}",
                "restore the model, or start over with --new",
            )
        return found.path

    return find
