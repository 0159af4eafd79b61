"""What `fccl prune` does: resolve, choose, cut, write, load again and compare."""

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

JUDGED = 1536  # texts, at most, that judge the result
_FEW = 60  # texts, below which the ones that chose must judge as well


@dataclass(frozen=True)
class Job:
    """The arguments of the command, as its help tells them."""

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
    """What chooses, and what judges: apart, where there are enough."""

    choosing: list[str]
    judging: list[str]
    labels: list[str] | None


def run(job: Job, report: ProgressCallback, say: Callable[[str], None]) -> dict[str, Any]:
    """Prune, write and compare; returns the figures as `--json` prints them.

    Args:
        job: What to do.
        report: Told of progress, from 0 to 1.
        say: Told, in lines, what was read.

    Raises:
        ConfigError: The arguments make no sense for this model, or OUT is taken.
        ModelError: The model is missing, no encoder, or of an architecture that cannot be pruned.
        DataError: The data cannot be read.
    """
    cpu = torch.device("cpu")
    prune.check_free(job.out)
    plan = prune.PruningPlan(job.layers, job.heads, job.ffn)
    source = base.resolve(job.model, None, cache_dir(), report, family="encoder")
    loaded = load_whole(source.path, cpu)
    prune.check_plan(plan, loaded.model.config)
    texts = _texts(job, say)
    smaller = copy.deepcopy(loaded.model)
    kept = prune.prune(
        smaller, plan, tokenise_batches(loaded, texts.choosing, job.max_length), report
    )
    record = prune.make_record(kept, source.path, source.digest, loaded.model.config)
    prune.save_pruned(smaller, record, source.path, job.out)
    again = load_whole(job.out, cpu)  # what was written is what is judged
    judging = tokenise_batches(loaded, texts.judging, job.max_length)
    before, after = loaded.model, again.model
    figures = _compare(before, after, source.path, job.out, judging, texts.labels, report)
    digest = base.resolve(str(job.out), None, cache_dir(), report, family="encoder").digest
    figures["source"] |= {"digest": source.digest}
    figures["pruned"] |= {"digest": digest, "kept_layers": record.layers}
    return figures | {"note": _note(texts)}


def _texts(job: Job, say: Callable[[str], None]) -> Texts:
    if job.data is None:
        return Texts(make_prose(0, job.rows), make_prose(1, job.rows), None)
    read = rows.load("cls", job.data, on_message=say).rows
    found = [row for row in read if isinstance(row, LabelledText)]
    Random(0).shuffle(found)  # files may be sorted by label
    choosing, judging = found[: job.rows], found[job.rows :][:JUDGED]
    if len(judging) < _FEW:
        judging = choosing
    return Texts(
        [row.text for row in choosing],
        [row.text for row in judging],
        [row.label for row in judging],
    )


def _note(texts: Texts) -> str:
    same = texts.judging == texts.choosing
    judges = "the same" if same else f"{len(texts.judging)} other"
    return f"chosen by {len(texts.choosing)} texts, judged by {judges}; batches of 8 × 64 tokens"


def _compare(
    before: Any,
    after: Any,
    source: Path,
    out: Path,
    judging: list[EncoderInputs],
    labels: list[str] | None,
    report: ProgressCallback,
) -> dict[str, Any]:
    threads = torch.get_num_threads()
    states = []
    for i, model in enumerate((before, after)):
        report("comparing", i / 2)
        states.append(comparison.pooled_states(model, judging))
    report("comparing", 1.0)
    one, every = (comparison.time_batches((before, after), n) for n in (1, threads))
    sizes = comparison.measure_size(before, source), comparison.measure_size(after, out)
    sides = [
        _side(sizes[i])
        | {
            "ms_one_thread": one[i],
            "ms_all_threads": every[i],
            "probe": comparison.probe_accuracy(states[i], labels) if labels else None,
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


def _side(size: EncoderSize) -> dict[str, Any]:
    """Heads as one number where all layers have as many."""
    alike = len(set(size.heads)) == 1
    return asdict(size) | {"heads": size.heads[0] if alike else size.heads}
