"""Data of a model card, and the Markdown helpers that its sections share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.protocol.fields import RowKind
from common.run_directory.recorded_run import RecordedRun
from evaluation.export.loading_snippets import LoadingInfo
from learning.data import hub_data
from learning.models.export import ExportSummary

DATA_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""A source that ends so is a file, even where it has the form of a hub id."""
KIND_TITLES: dict[RowKind, str] = {
    "sft": "instructions with answers",
    "va": "preference pairs",
    "cls": "labelled texts",
}


@dataclass(frozen=True)
class CardData:
    """What a model card is made from.

    Attributes:
        version: The exported version.
        written: What the export contains.
        evaluation: The evaluation of this version in the run directory; empty if there is none.
        software: The software that wrote the export, each with its version.
    """

    run: RecordedRun
    version: int
    written: ExportSummary
    evaluation: Mapping[str, Any]
    software: Sequence[str]

    @property
    def loading(self) -> LoadingInfo:
        """What the loading snippets need to know."""
        return LoadingInfo(
            objective=self.run.config.phase[0].objective,
            labels=self.run.labels,
            max_length=self.run.config.model.max_length,
            written=self.written,
            revision=self.run.base.revision,
        )

    @property
    def base_on_hub(self) -> bool:
        return self.run.base.kind == "hub"


def parse_hub_id(source: str) -> str | None:
    """Return the hub id of a source; None for a file or made rows."""
    parsed = hub_data.parse_source(source)
    return parsed.name if parsed and not source.lower().endswith(DATA_FILES) else None


def format_code(text: str) -> str:
    """Return text that Markdown shows verbatim, in one line."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
