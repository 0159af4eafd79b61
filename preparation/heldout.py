"""Beginning of a run whose rows all stay at the sites: no rows are dealt.

The coordinator may have held-out rows of its own (`evaluation.rows`), which no client trains on.
They are copied into the run directory, so that the file is not needed again. `preparation/data.py`
deals the rows of other runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.config.config import FederationConfig
from common.errors import DataError
from common.protocol.fields import RowKind
from learning.data import shards, sources
from learning.data.omissions import print_omissions
from learning.data.row_types import Row
from learning.data.rows import LoadedRows
from learning.models.base import BaseModel
from learning.models.loader import load_tokenizer
from preparation.base_model import MessageCallback
from preparation.data import (
    PreparedRows,
    check_columns,
    check_length,
    choose_run_prompt,
    usable_rows,
)


def prepare_heldout(
    config: FederationConfig,
    find_model: Callable[[], BaseModel],
    folder: Path,
    on_message: MessageCallback,
) -> PreparedRows:
    """Return what a run without dealt rows begins with; write its held-out rows, if it has any.

    Args:
        find_model: Returns the base model, once the rows have been read.
        folder: Where held-out rows are written; it is not created without any.

    Raises:
        DataError: `evaluation.rows` cannot be used, or the folder cannot be written.
        ConfigError: `data.columns`, `data.labels` or `model.max_length` does not fit.
    """
    check_columns(config)
    source = config.evaluation.rows
    rows = {} if source is None else _read_rows(config, source, on_message)
    labels = sources.check_class_names(config.data.labels)
    model = find_model()
    tokenizer, model_config = load_tokenizer(model.path)
    check_length(config.model.max_length, model_config)
    prompt = choose_run_prompt(config, tokenizer)
    if source is None:
        return PreparedRows(folder, model, {}, labels, prompt, {})
    kept, summaries = usable_rows(
        config, rows, lambda kind: source, labels, prompt, tokenizer, on_message
    )
    try:
        shards.write_heldout(kept, folder)
    except OSError as error:
        raise DataError(
            f"the rows of {source} cannot be written to {folder}: {error.strerror}",
            "free some space, or set run.dir to another folder",
        ) from None
    return PreparedRows(folder, model, {}, labels, prompt, summaries)


def _read_rows(
    config: FederationConfig, source: str, on_message: MessageCallback
) -> dict[RowKind, LoadedRows[Row]]:
    """Read the rows of all kinds of the plan from one file.

    Where the plan has several kinds, a row counts as skipped if it is of none of them.
    """
    data = config.data
    found = {
        kind: sources.load_source(
            kind,
            source,
            count=0,
            seed=config.run.seed,
            columns=data.columns,
            labels=data.labels,
            on_message=lambda _: None,
        )
        for kind in config.kinds
    }
    unusable = set.intersection(*({each.line for each in own.skipped} for own in found.values()))
    kept = {
        kind: replace(own, skipped=tuple(one for one in own.skipped if one.line in unusable))
        for kind, own in found.items()
    }
    print_omissions(source, next(iter(kept.values())), on_message)
    return kept
