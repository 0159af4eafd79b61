"""Work of `fccl prune`: choose heads and units, prune, write, load again and compare."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from common.paths import cache_dir
from learning.data import rows
from learning.data.row_types import LabelledText
from learning.models import base
from learning.models.encoders import load_whole
from learning.progress import ProgressCallback
from learning.pruning import comparison, prune
from learning.pruning.comparison import EncoderSize
from learning.pruning.importance import EncoderInputs, tokenise_batches
from learning.synthetic.instructions import make_prose

MAX_COMPARED = 1536  # texts of the comparison
_MIN_COMPARED = 60  # with fewer, the texts that decided what is pruned serve again


@dataclass(frozen=True)
class PruneJob:
    """Arguments of the command."""

    model: str
    out: Path
    layers: int | tuple[int, ...] | None
    heads: float
    ffn: float
    data: str | None
    rows: int
    max_length: int


@dataclass(frozen=True)
class Texts:
    """Texts that decide what is pruned, and other texts for the comparison if there are enough."""

    pruning: list[str]
    comparison: list[str]
    labels: list[str] | None  # of the comparison


def run(
    job: PruneJob, on_progress: ProgressCallback, on_message: Callable[[str], None]
) -> dict[str, Any]:
    """Prune, write and compare; return the figures as `--json` prints them.

    Raises:
        ConfigError: The arguments make no sense for this model, or OUT is taken.
        ModelError: The model is missing, is not an encoder, or has an architecture that cannot be
            pruned.
        DataError: The data cannot be read.
    """
    cpu = torch.device("cpu")
    prune.check_free(job.out)
    plan = prune.PruningPlan(job.layers, job.heads, job.ffn)
    source = base.resolve(job.model, None, cache_dir(), on_progress, family="encoder")
    loaded = load_whole(source.path, cpu)
    prune.check_plan(plan, loaded.model.config)
    texts = _texts(job, on_message)
    smaller = copy.deepcopy(loaded.model)
    kept = prune.prune(
        smaller, plan, tokenise_batches(loaded, texts.pruning, job.max_length), on_progress
    )
    record = prune.make_record(kept, source.path, source.digest, loaded.model.config)
    prune.save_pruned(smaller, record, source.path, job.out)
    again = load_whole(job.out, cpu)  # what was written is compared
    inputs = tokenise_batches(loaded, texts.comparison, job.max_length)
    before, after = loaded.model, again.model
    figures = _compare(before, after, source.path, job.out, inputs, texts.labels, on_progress)
    digest = base.resolve(str(job.out), None, cache_dir(), on_progress, family="encoder").digest
    figures["source"] |= {"digest": source.digest}
    figures["pruned"] |= {"digest": digest, "kept_layers": record.layers}
    return figures | {"note": _note(texts)}


def _texts(job: PruneJob, on_message: Callable[[str], None]) -> Texts:
    if job.data is None:
        return Texts(make_prose(0, job.rows), make_prose(1, job.rows), None)
    read = rows.load("cls", job.data, on_message=on_message).rows
    texts = [row for row in read if isinstance(row, LabelledText)]
    Random(0).shuffle(texts)  # files may be sorted by label
    first, others = texts[: job.rows], texts[job.rows :][:MAX_COMPARED]
    if len(others) < _MIN_COMPARED:
        others = first
    return Texts(
        [row.text for row in first],
        [row.text for row in others],
        [row.label for row in others],
    )


def _note(texts: Texts) -> str:
    same = texts.comparison == texts.pruning
    compared = "the same" if same else f"{len(texts.comparison)} other"
    return f"pruned by {len(texts.pruning)} texts, compared on {compared}; batches of 8 × 64 tokens"


def _compare(
    before: Any,
    after: Any,
    source: Path,
    out: Path,
    inputs: list[EncoderInputs],
    labels: list[str] | None,
    on_progress: ProgressCallback,
) -> dict[str, Any]:
    threads = torch.get_num_threads()
    states = []
    for i, model in enumerate((before, after)):
        on_progress("comparing", i / 2)
        states.append(comparison.pooled_states(model, inputs))
    on_progress("comparing", 1.0)
    one, every = (comparison.time_batches((before, after), n) for n in (1, threads))
    sizes = comparison.measure_size(before, source), comparison.measure_size(after, out)
    sides = [
        _size_fields(sizes[i])
        | {
            "ms_one_thread": one[i],
            "ms_all_threads": every[i],
            "probe_accuracy": comparison.probe_accuracy(states[i], labels) if labels else None,
            "cosine": comparison.mean_cosine(states[i], states[0]),
        }
        for i in range(2)
    ]
    ratio = {
        "parameters": sizes[1].parameters / sizes[0].parameters,
        "one_thread": one[0] / one[1],
        "all_threads": every[0] / every[1],
    }
    return {"source": sides[0], "pruned": sides[1], "ratio": ratio, "threads": threads}


def _size_fields(size: EncoderSize) -> dict[str, Any]:
    """Return the fields of a size; heads are one number if all layers have the same number."""
    alike = len(set(size.heads)) == 1
    return asdict(size) | {"heads": size.heads[0] if alike else size.heads}
