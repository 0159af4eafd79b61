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

# A source with such a suffix is a file, even if it has the form of a hub id.
_FILE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
KIND_TITLES: dict[RowKind, str] = {
    "sft": "instructions with answers",
    "va": "preference pairs",
    "kto": "rated answers",
    "cls": "labelled texts",
}


@dataclass(frozen=True)
class CardData:
    """The contents of a model card."""

    run: RecordedRun
    version: int
    written: ExportSummary
    evaluation: Mapping[str, Any]  # of this version, from a report's JSON; may be empty
    software: Sequence[str]  # names and versions of what wrote the export

    @property
    def loading(self) -> LoadingInfo:
        return LoadingInfo(
            objective=self.run.config.phase[0].objective,
            labels=self.run.labels,
            max_length=self.run.config.model.max_length,
            written=self.written,
            revision=self.run.base.revision,
            quantization=self.run.config.model.quantization,
        )

    @property
    def base_on_hub(self) -> bool:
        return self.run.base.kind == "hub"


def parse_hub_id(source: str) -> str | None:
    """Return the hub id of a source; None for a file or synthetic rows."""
    parsed = hub_data.parse_source(source)
    return parsed.name if parsed and not source.lower().endswith(_FILE_SUFFIXES) else None


def format_code(text: str) -> str:
    """Return text that Markdown shows verbatim, in one line."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
