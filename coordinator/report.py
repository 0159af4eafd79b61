"""What a run achieved: base against federated adapter on the held-out rows, and how it got there.

Read from the journal and the version directories after the run; the adapter is loaded the way any
user of the run would, with `PeftModel.from_pretrained`. `coordinator/report_files.py` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.records import VersionSummary
from coordinator import retention
from coordinator.run import Run
from learning import loading, shards, tokens
from learning import rows as rows_of
from learning.device import Compute
from learning.evaluation import Evaluation, evaluate, generate, unigram_entropy
from learning.instructions import Instruction
from learning.template import prompt

BATCH = 32


@dataclass(frozen=True)
class Sample:
    """One held-out instruction, answered before and after."""

    instruction: str
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Attributes:
        name: Of the run.
        base_name: Of the base model.
        adapter: Directory of the last version.
        rows: Held-out rows that were evaluated.
        unigram: Nats per token of the held-out responses under their own unigram distribution: what
            a model must beat to have read anything.
        base: Evaluation without the adapter.
        federated: Evaluation with it.
        versions: Every version's summary.
        federated_loss: Loss of each version on the clients' own holdouts, before they trained on.
        samples: Generations side by side.
        directory: Of the run.
    """

    name: str
    base_name: str
    adapter: Path
    rows: int
    unigram: float
    base: Evaluation
    federated: Evaluation
    versions: tuple[VersionSummary, ...]
    federated_loss: dict[int, float]
    samples: tuple[Sample, ...]
    directory: Path


def build(run: Run, compute: Compute, samples: int = 3, new_tokens: int = 40) -> Report:
    """Evaluate the newest version of a run.

    Args:
        run: Opened.
        compute: Where to evaluate.
        samples: Held-out rows to answer with text.
        new_tokens: Length of an answer, at most.

    Raises:
        DataError: The held-out rows are gone.
        ModelError: The base model cannot be loaded.
    """
    versions = tuple(run.journal.versions())
    rows = rows_of.read("sft", shards.load(run.directory / "clients").heldout["sft"]).rows
    loaded = loading.load(run.base_path, compute.device)
    encoded = tokens.encode(loaded.tokenizer, rows, run.template.max_length).examples
    chosen = _spread(rows, samples)
    base = evaluate(loaded.model, encoded, BATCH, autocast=compute.autocast)
    before = _answers(loaded.model, loaded.tokenizer, chosen, new_tokens)
    adapter = run.versions.directory(versions[-1].version)
    model = PeftModel.from_pretrained(loaded.model, str(adapter))
    federated = evaluate(model, encoded, BATCH, autocast=compute.autocast)
    after = _answers(model, loaded.tokenizer, chosen, new_tokens)
    return Report(
        name=run.name,
        base_name=run.template.base.name,
        adapter=adapter,
        rows=len(encoded),
        unigram=unigram_entropy(encoded),
        base=base,
        federated=federated,
        versions=versions,
        federated_loss=retention.federated_loss(versions),
        samples=tuple(
            Sample(_shown(row), row.output, one, other)
            for row, one, other in zip(chosen, before, after, strict=True)
        ),
        directory=run.directory / "report",
    )


def _spread(rows: Sequence[Instruction], count: int) -> list[Instruction]:
    """Rows from the beginning, middle and end, rather than neighbours."""
    step = max(1, len(rows) // max(1, count))
    return list(rows[::step][:count])


def _answers(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Instruction],
    new_tokens: int,
) -> list[str]:
    return generate(
        model, tokenizer, [prompt(row.instruction, row.input) for row in rows], new_tokens
    )


def _shown(row: Instruction) -> str:
    return f"{row.instruction} {row.input}".strip()
