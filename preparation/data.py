"""Rows dealt to clients: read from their sources, checked against the model, written to a folder.

`preparation/run.py` begins a run with them; `fccl prepare` deals them in advance.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from common.config.config import FederationConfig
from common.errors import ConfigError, DataError
from common.files import write_durable
from common.protocol.fields import RowKind
from common.protocol.tasks import PromptSpec
from common.start_lock import only_start
from learning.data import prepared_data, shards, sources
from learning.data.row_parser import COLUMN_NAMES
from learning.data.row_types import LabelledText, Row
from learning.data.rows import LoadedRows
from learning.models.base import BaseModel
from learning.models.loader import load_tokenizer
from learning.objectives import registry
from learning.prompts.choice import choose_prompt
from learning.training.batches import WIDTH_MULTIPLE
from preparation.base_model import MessageCallback

PREPARED_FILE = "data.json"  # in a folder of prepared rows: their settings, digests and summaries
_OFFSET_POSITIONS = ("roberta", "camembert", "mpnet")  # their positions begin after the padding id


@dataclass(frozen=True)
class PreparedRows:
    """Rows of all clients in a folder, in the files of `learning.data.shards`."""

    folder: Path
    model: BaseModel  # its tokens decided which rows fit
    rows: Mapping[str, Mapping[RowKind, int]]  # training rows by client and kind
    labels: tuple[str, ...]  # class names of a run that classifies
    prompt: PromptSpec | None  # of a run that does not classify
    sources: Mapping[str, Any]  # `learning.data.sources.SourceSummary` by kind, as JSON values


def prepare_rows(
    config: FederationConfig,
    find_model: Callable[[], BaseModel],
    folder: Path,
    on_message: MessageCallback,
) -> PreparedRows:
    """Return the rows in a folder if they were made for this configuration; else deal new ones.

    Args:
        find_model: Returns the base model. It is called once the sources have been read: making or
            fetching a model takes minutes, and a mistake in the data should be reported sooner.

    Raises:
        DataError: A source cannot be used or has too few rows, or the folder holds other rows, is
            damaged, or cannot be written.
        RunError: Another start deals rows into the folder.
        ConfigError: `data.columns` or `model.max_length` does not fit.
    """
    check_columns(config)
    if is_prepared(folder):
        return _read_prepared(folder, config, find_model())
    with only_start(folder):
        if is_prepared(folder):  # by another start just now
            return _read_prepared(folder, config, find_model())
        return _deal_rows(config, find_model, folder, on_message)


def _deal_rows(
    config: FederationConfig,
    find_model: Callable[[], BaseModel],
    folder: Path,
    on_message: MessageCallback,
) -> PreparedRows:
    digests = {kind: _file_digest(config.data.source(kind)) for kind in config.kinds}
    rows = _read_sources(config, on_message)
    labels = _class_names(config, rows)
    model = find_model()
    tokenizer, model_config = load_tokenizer(model.path)
    check_length(config.model.max_length, model_config)
    prompt = choose_run_prompt(config, tokenizer)
    kept, summaries = usable_rows(
        config, rows, config.data.source, labels, prompt, tokenizer, on_message
    )
    record = {
        "made_for": _settings(config, model),
        "labels": list(labels),
        "prompt": None if prompt is None else prompt.fields(),
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
        write_durable(folder / PREPARED_FILE, json.dumps(record, indent=1).encode())
    except OSError as error:
        raise DataError(
            f"rows cannot be written to {folder}: {error.strerror}",
            "free some space, check the folder's permissions, or choose another folder",
        ) from None
    for note in prepared_data.rating_notes(prepared):
        on_message(note)
    return PreparedRows(folder, model, prepared.rows(), labels, prompt, summaries)


def is_prepared(folder: Path) -> bool:
    """Return whether a folder's preparation was completed; otherwise its rows are dealt again."""
    # Path.is_file raises where the folder is not readable; the error of writing there says more.
    return all(os.path.isfile(folder / name) for name in (prepared_data.MANIFEST, PREPARED_FILE))  # noqa: PTH113


def check_columns(config: FederationConfig) -> None:
    """Raise `ConfigError` if `data.columns` names a field that no row of the plan has."""
    fields = dict.fromkeys(field for kind in config.kinds for field in COLUMN_NAMES[kind])
    if unknown := [field for field in config.data.columns if field not in fields]:
        raise ConfigError(
            f"data.columns names {unknown[0]!r}, which is not a field of this plan's rows",
            f"their fields are {', '.join(fields)}",
        )


def check_length(max_length: int, model: PretrainedConfig) -> None:
    """Raise `ConfigError` if sequences can be longer than the model has positions."""
    model = model.get_text_config()
    positions = getattr(model, "max_position_embeddings", None)
    if positions is None:
        return
    padding = getattr(model, "pad_token_id", None) or 0
    if any(name in str(model.model_type) for name in _OFFSET_POSITIONS):
        positions -= padding + 1
    limit = positions // WIDTH_MULTIPLE * WIDTH_MULTIPLE  # batches are padded to such widths
    if max_length > limit:
        raise ConfigError(
            f"model.max_length is {max_length}, but the model has {positions} positions",
            f"set it to {limit} or less",
        )


def _read_sources(
    config: FederationConfig, on_message: MessageCallback
) -> dict[RowKind, LoadedRows[Row]]:
    data = config.data
    return {
        kind: sources.load_source(
            kind,
            data.source(kind),
            count=data.rows,
            seed=config.run.seed,
            columns=data.columns,
            labels=data.labels,
            on_message=on_message,
        )
        for kind in config.kinds
    }


def _class_names(
    config: FederationConfig, rows: Mapping[RowKind, LoadedRows[Row]]
) -> tuple[str, ...]:
    if "cls" not in rows:
        return ()
    return sources.class_names(
        cast("tuple[LabelledText, ...]", rows["cls"].rows), config.data.labels
    )


def choose_run_prompt(
    config: FederationConfig, tokenizer: PreTrainedTokenizerBase
) -> PromptSpec | None:
    """Return the prompt form of a run, with today's date; None for one that classifies."""
    if config.classifies:
        return None
    turns = [phase.turns for phase in config.phase if phase.kind == "sft"]
    today = datetime.now(UTC).date()
    return choose_prompt(config.model.prompt, tokenizer, turns, today)


def usable_rows(
    config: FederationConfig,
    rows: Mapping[RowKind, LoadedRows[Row]],
    source_of: Callable[[RowKind], str],
    labels: tuple[str, ...],
    prompt: PromptSpec | None,
    tokenizer: PreTrainedTokenizerBase,
    on_message: MessageCallback,
) -> tuple[dict[RowKind, list[Row]], dict[str, Any]]:
    """Return the rows by kind that fit the model, and a summary of each source.

    Raises:
        DataError: No row of a kind is left, or all rated answers have the same rating.
    """
    kept: dict[RowKind, list[Row]] = {}
    summaries: dict[str, Any] = {}
    for phase in {phase.kind: phase for phase in config.phase}.values():
        kind, source = phase.kind, source_of(phase.kind)
        settings = phase.dpo or phase.kto
        objective = registry.make_objective(phase.objective, settings, labels, prompt=prompt)
        kept[kind], summary = sources.select_usable(
            rows[kind], source, objective, tokenizer, config.model.max_length
        )
        summaries[kind] = summary.fields()
        on_message(summary.line())
        if kind == "kto":
            sources.check_ratings(kept[kind], source)
    return kept, summaries


def _settings(config: FederationConfig, model: BaseModel) -> dict[str, Any]:
    """Return all settings on which prepared rows depend, as JSON values."""
    data = config.data.model_dump(mode="json", exclude={"dir", *get_args(RowKind)})
    kinds = {kind: config.data.source(kind) for kind in config.kinds}
    model_keys = {"digest": model.digest, "max_length": config.model.max_length}
    if not config.classifies:
        content = _file_digest(config.model.prompt)
        model_keys["prompt"] = config.model.prompt + (f" {content[:12]}" if content else "")
    return {"seed": config.run.seed, "sources": kinds, **data, **model_keys}


def _file_digest(source: str) -> str | None:
    """Return the digest of a source that is a readable file; None for any other."""
    try:
        with Path(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _read_prepared(folder: Path, config: FederationConfig, model: BaseModel) -> PreparedRows:
    settings = _settings(config, model)
    try:
        record = json.loads((folder / PREPARED_FILE).read_text(encoding="utf-8"))
        made_for, labels, summaries = record["made_for"], tuple(record["labels"]), record["sources"]
        # Folders of earlier releases have no prompt form.
        different = [key for key in settings if made_for.get(key, "auto") != settings[key]]
        prompt = record.get("prompt") and PromptSpec(**record["prompt"])
        digests = dict(record.get("digests", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{folder / PREPARED_FILE} is damaged", "remove the folder and prepare it again"
        ) from None
    if different:
        raise DataError(
            f"{folder} was prepared {_difference(different[0], made_for, settings)}",
            "restore that setting, or prepare the rows in another folder",
        )
    _check_unchanged(folder, settings["sources"], digests)
    prepared = prepared_data.load(folder)
    prepared_data.check_files(prepared)
    if prompt is None:
        prompt = choose_run_prompt(config, load_tokenizer(model.path)[0])
    return PreparedRows(folder, model, prepared.rows(), labels, prompt, summaries)


def _check_unchanged(
    folder: Path, kinds: Mapping[str, str], digests: Mapping[str, str | None]
) -> None:
    for kind, source in kinds.items():
        before, now = digests.get(kind), _file_digest(source)
        if before is not None and now is not None and before != now:
            raise DataError(
                f"{folder} was prepared from {source}, and that file has changed since",
                "remove the folder, or prepare the rows in another folder",
            )


def _difference(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the difference in one setting, as the end of a sentence."""
    if key == "digest":  # another model may count other tokens, so that other rows fit
        return "for another base model (model.name)"
    if key == "sources":
        return f"from {before.get(key)}, not from {now[key]}"
    table = {"seed": "run", "max_length": "model", "prompt": "model"}.get(key, "data")
    return f"with {table}.{key} = {before.get(key)}, not {now[key]}"
