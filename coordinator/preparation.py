"""What a run begins with: rows dealt to clients, the base model, the adapter of version 0.

First step of an update's way: `learning` makes the shards and the adapter, `coordinator/run.py`
keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PretrainedConfig

from common.config import DataConfig, FederationConfig
from common.errors import ConfigError, ModelError
from common.records import BaseRef
from coordinator.run import Origin
from learning import base, instructions, lora, shards, synthetic
from learning.base import Report
from learning.instructions import Instructions


def origin(
    config: FederationConfig, cache: Path, report: Report, say: Callable[[str], None]
) -> Callable[[Path], Origin]:
    """A function that prepares a run directory and says what the run begins with.

    Args:
        config: Of the run.
        cache: Folder of base models.
        report: Told of progress.
        say: Told in a line what was read and skipped.
    """

    def prepare(directory: Path) -> Origin:
        rows = read_rows(config.data, config.run.seed, say)
        prepared = shards.prepare(
            rows.rows,
            clients=config.data.clients,
            alpha=config.data.alpha,
            by=config.data.partition,
            seed=config.run.seed,
            heldout=config.data.heldout,
            out=directory / "clients",
        )
        model = base.resolve(config.model.name, config.model.revision, cache, report)
        loaded = base.load(model.path, torch.device("cpu"))
        check_length(config.model.max_length, loaded.model.config)
        adapted = lora.attach(loaded.model, config.model.lora, config.run.seed)
        place = model.name if model.kind == "hub" else str(model.path)
        return Origin(
            base=BaseRef(
                name=model.name, revision=model.revision, kind=model.kind, digest=model.digest
            ),
            base_path=model.path,
            rows={shard.client_id: shard.train_rows for shard in prepared.clients},
            adapter=lora.read_adapter(adapted),
            adapter_config=lora.adapter_config(adapted, place, model.revision),
        )

    return prepare


def check_length(max_length: int, model: PretrainedConfig) -> None:
    """Refuse sequences for which the model has no positions.

    Raises:
        ConfigError: `model.max_length` is over what the model was made for.
    """
    positions = getattr(model, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise ConfigError(
            f"model.max_length is {max_length}, but the model has {positions} positions",
            f"set it to {positions} or less",
        )


def read_rows(data: DataConfig, seed: int, say: Callable[[str], None]) -> Instructions:
    """The rows of `data.sft`: a file, or the synthetic instructions.

    Raises:
        DataError: The file is missing, or no row of it is usable.
    """
    if data.sft == "synthetic":
        return Instructions(tuple(synthetic.instructions(seed, data.rows)), ())
    rows = instructions.read(Path(data.sft))
    for skipped in rows.skipped[:5]:
        say(f"skipped {data.sft}:{skipped.line}: {skipped.reason}")
    if rows.skipped:
        say(f"{data.sft}: {len(rows.rows)} rows read, {len(rows.skipped)} skipped")
    return rows


def find_base(config: FederationConfig, cache: Path, report: Report) -> Callable[[BaseRef], Path]:
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
