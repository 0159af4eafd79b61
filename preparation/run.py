"""Preparation of a new run: rows dealt to clients, the base model, the adapter of version 0.

First step in the path of an update. `coordinator/storage/run.py` keeps the result in the run
directory; the coordinator then opens it and issues tasks from it.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path

import torch

from common.byte_sizes import format_bytes
from common.config.config import FederationConfig
from common.errors import ConfigError, DataError, ModelError, WireError
from common.protocol.codec import payload_bytes
from common.protocol.layout import TensorLayout
from common.protocol.tasks import BaseRef
from common.protocol.tensors import Tensors
from coordinator.storage import run as runs
from coordinator.storage.run import PreparedRun
from learning.data import prepared_data
from learning.models import lora, objective_model
from learning.progress import ProgressCallback
from preparation.base_model import MessageCallback, apply_offline_fallback, resolve_base_model
from preparation.data import PREPARED_FILE, prepare_rows

_HEADER_BYTES = 4096  # more than the header of an update has
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
    prepare = partial(prepare_run, config, cache, on_progress, on_message)
    runs.create_run(config, prepare, time.time())


def prepare_run(
    config: FederationConfig,
    cache: Path,
    on_progress: ProgressCallback,
    on_message: MessageCallback,
    directory: Path,
) -> PreparedRun:
    """Write `clients/` into a run directory and return everything else that the run begins with."""
    clients = directory / "clients"
    find_model = partial(resolve_base_model, config, cache, on_progress)
    prepared = prepare_rows(config, find_model, Path(config.data.dir or clients), on_message)
    model = prepared.model
    if prepared.folder != clients:
        _copy_rows(prepared.folder, clients)
    objective = config.phase[0].objective
    loaded = objective_model.load_for_objective(
        objective, model.path, prepared.labels, torch.device("cpu")
    )
    adapted = lora.attach(loaded.model, config.model.lora, config.run.seed)
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
    )


def check_update(config: FederationConfig, adapter: Tensors) -> None:
    """Check, before the run begins, that updates of an adapter can travel.

    Raises:
        ModelError: The adapter has too many tensors, or a name that cannot travel.
        ConfigError: An update is larger than the quota of a site's queue.
    """
    try:
        layout = TensorLayout.of(adapter)
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


def _copy_rows(folder: Path, clients: Path) -> None:
    """Copy prepared rows, and no other files of the folder, which may be a home directory.

    Rows that the manifest does not name are left from an unfinished preparation for more clients.
    """
    prepared = prepared_data.load(folder)
    rows = [*(shard.path for shard in prepared.shards), *prepared.heldout.values()]
    metadata = [path for form in _METADATA for path in folder.glob(form) if path.is_file()]
    try:
        clients.mkdir()
        for path in rows + metadata:
            shutil.copyfile(path, clients / path.name)
    except OSError as error:
        raise DataError(
            f"the rows of {folder} cannot be copied to {clients}: {error.strerror}",
            "free some space, or set run.dir to another folder",
        ) from None
