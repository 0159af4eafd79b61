"""Preparation of a new run: rows dealt to clients (if any), the base model, version 0.

Version 0 is a fresh adapter, or the exported one that `model.adapter` names.

First step in the path of an update. `coordinator/storage/run.py` keeps the result in the run
directory; the coordinator then opens it and issues tasks from it.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from common.byte_sizes import format_bytes
from common.config.config import FederationConfig
from common.config.effect import check_effect
from common.errors import ConfigError, DataError, ModelError, WireError
from common.protocol.codec import payload_bytes
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from coordinator.aggregation.forms import adapter_forms
from coordinator.storage import run as runs
from coordinator.storage.run import PreparedRun
from learning.data import prepared_data
from learning.data.prompts_file import read_prompts
from learning.models import exported_adapter, lora
from learning.models.adapted import load_adapted
from learning.models.exported_adapter import ExportedAdapter
from learning.models.lora import AdaptedModel
from learning.models.lora_targets import check_targets
from learning.models.precision import weight_format
from learning.models.quantized import check_quantizable
from learning.progress import ProgressCallback
from preparation.base_model import (
    MessageCallback,
    announce_size,
    apply_offline_fallback,
    resolve_base_model,
)
from preparation.data import PREPARED_FILE, PreparedRows, prepare_rows
from preparation.heldout import prepare_heldout
from preparation.recorded_origin import with_recorded_origin

_HEADER_BYTES = 4096  # more than the header of an update has
_DEALT = re.compile(r"client_\d+")
_METADATA = (prepared_data.MANIFEST, PREPARED_FILE, "skew.txt", "skew_*.png")


def create_prepared_run(
    config: FederationConfig,
    cache: Path,
    on_progress: ProgressCallback,
    on_message: MessageCallback,
) -> None:
    """Create the configured run directory; `cache` is the folder of base models.

    Raises:
        DataError: The rows cannot be prepared.
        ModelError: The base model cannot be found, fetched, made or used.
        ConfigError: A key does not fit the rows or the model.
        RunError: The run directory cannot be written.
    """
    config = apply_offline_fallback(config, on_message)
    check_effect(config)
    prepare = partial(prepare_run, config, cache, on_progress, on_message)
    runs.create_run(config, prepare, time.time())


def prepare_run(
    config: FederationConfig,
    cache: Path,
    on_progress: ProgressCallback,
    on_message: MessageCallback,
    directory: Path,
) -> PreparedRun:
    """Write `clients/` into a run directory and return everything else that the run begins with.

    Without rows, as where they all stay at the sites, there is no such folder.
    """
    clients = directory / "clients"
    start = _read_start(config)
    find_model = partial(resolve_base_model, config, cache, on_progress)
    if config.sites_only:
        prepared = prepare_heldout(config, find_model, clients, on_message)
    else:
        prepared = prepare_rows(config, find_model, Path(config.data.dir or clients), on_message)
    check_ranks(config, prepared.rows)
    if config.samples.prompts_file is not None:  # a mistake in it should not wait for a sampler
        read_prompts(Path(config.samples.prompts_file), config.samples.prompts, prepared.labels)
    model = prepared.model
    announce_size(model, on_message)
    if prepared.folder != clients:
        _copy_rows(prepared.folder, clients)
    objective = config.phase[0].objective
    check_quantizable(model.path, weight_format(config.model.precision, autocast=False))
    adapted = load_adapted(
        objective,
        model.path,
        prepared.labels,
        torch.device("cpu"),
        config.model.lora,
        seed=config.run.seed,
    ).model
    check_targets(adapted, config.model.lora)
    if start is not None:
        _begin_with(start, adapted, prepared, on_message)
    adapter = lora.read_adapter(adapted)
    check_update(config, adapter)
    base_name = model.name if model.kind == "hub" else str(model.path)
    return PreparedRun(
        base=BaseRef(
            name=model.name, revision=model.revision, kind=model.kind, digest=model.digest
        ),
        base_path=model.path,
        rows=prepared.rows,
        labels=prepared.labels,
        prompt=prepared.prompt,
        sources=prepared.sources,
        adapter=adapter,
        adapter_config=lora.adapter_config(adapted, base_name, model.revision),
        start=start.start if start else None,
    )


def _read_start(config: FederationConfig) -> ExportedAdapter | None:
    """Return the adapter that `model.adapter` names; None where the run begins with a fresh one."""
    if config.model.adapter is None or config.model.lora is None:
        return None
    path = Path(config.model.adapter).expanduser()
    adapter = with_recorded_origin(exported_adapter.read_exported(path))
    exported_adapter.check_settings(adapter, config.model.lora)
    return adapter


def _begin_with(
    start: ExportedAdapter,
    adapted: AdaptedModel,
    prepared: PreparedRows,
    on_message: MessageCallback,
) -> None:
    """Write an exported adapter into the model, once it is known to fit."""
    exported_adapter.check_base(start, prepared.model.digest, prepared.labels)
    exported_adapter.check_names(start, lora.read_adapter(adapted))
    lora.write_adapter(adapted, start.tensors)
    on_message(f"version 0 is the adapter in {start.path}: {start.start.describe()}")
    if start.origin is None:
        on_message(
            "that adapter does not name its base model: only names and shapes of its tensors were"
            " checked"
        )
    elif start.origin.prompt not in (None, exported_adapter.prompt_digest(prepared.prompt)):
        on_message(
            "it was trained with another prompt form, or another date in it: unless you mean that,"
            " set model.prompt as in that run"
        )


def check_update(config: FederationConfig, adapter: Tensors) -> None:
    """Check, before the run begins, that updates of an adapter can travel.

    Raises:
        ModelError: The adapter has too many tensors, or a name that cannot travel.
        ConfigError: An update is larger than the quota of a site's queue.
    """
    try:
        layout = adapter_forms(config).common.layout(TensorLayout.of(adapter))
    except WireError as error:
        raise ModelError(
            f"{config.model.name}: {error.what}",
            "set model.lora.targets to fewer of its linear layers, such as the attention's",
        ) from None
    nbytes = payload_bytes(config.codec.update, layout) + _HEADER_BYTES
    if nbytes > config.broker.site_mib << 20:
        raise ConfigError(
            f"an update of this run has {format_bytes(nbytes)}, more than a site's queue holds"
            f" (broker.site_mib = {config.broker.site_mib})",
            f"set broker.site_mib to {-(-nbytes >> 20)} or more, or train less: a lower"
            " model.lora.r, fewer model.lora.targets, a smaller codec.update",
        )


def check_ranks(config: FederationConfig, rows: Mapping[str, object]) -> None:
    """Check that ranks are those of clients that exist, or that may join with an invited site.

    Raises:
        ConfigError: A name is that of a client to which rows are dealt, but there is none.
    """
    for client in config.model.ranks:
        if client not in rows and rows and _DEALT.fullmatch(client):
            raise ConfigError(
                f"model.ranks names {client}, but the run's rows are dealt to {len(rows)} other"
                " clients",
                "correct the name; clients of invited sites, SITE or SITE.NAME, may join later",
            )


def _copy_rows(folder: Path, clients: Path) -> None:
    """Copy prepared rows, and no other files of the folder, which may be a home directory.

    Rows that the manifest does not name are left from an unfinished preparation for more clients.
    """
    prepared = prepared_data.load(folder)
    rows = [*(shard.path for shard in prepared.shards), *prepared.heldout.values()]
    metadata = [path for form in _METADATA for path in folder.glob(form) if path.is_file()]
    try:
        clients.mkdir(mode=0o700)
        for path in rows + metadata:
            shutil.copyfile(path, clients / path.name)
    except OSError as error:
        raise DataError(
            f"the rows of {folder} cannot be copied to {clients}: {error.strerror}",
            "free some space, or set run.dir to another folder",
        ) from None
