"""Rows of the sites and held-out rows: sentences of movie reviews, and the model that reads them.

The base model is MiniLM's uppermost layer; the layers below, which are not trained, are computed
once (`simulation.experiments.precomputed`), so that a step costs this machine little.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from benchmarks.hospital.scenario import Scenario, Site
from learning.data import rows, splits
from learning.data.row_types import LabelledText
from simulation.experiments.precomputed import precompute

LABELS = ("0", "1")
HELDOUT_ROWS = 500
MAX_LENGTH = 40  # tokens
LAYERS = 1  # that are trained
_POOL = 2500  # rows to choose those of the sites from
_ORDER = 17  # seed of the order in which rows are dealt into halves

Part = Literal["report", "tune"]
"""Half of the rows: settings are chosen on one half, and figures are reported on the other."""


def prepare(scenario: Scenario, model: Path, data: Path, part: Part, out: Path) -> None:
    """Write the base model, SITE.jsonl for each site and heldout.jsonl, unless they are there.

    Args:
        scenario: The scenario, which says how many rows each site has.
        model: Directory of MiniLM.
        data: Directory with `sentiment_train.tsv` and `sentiment_dev.tsv`.
        part: The half of the rows.
        out: Directory to write.
    """
    heldout = out / "heldout.jsonl"
    if heldout.exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    texts = _read_texts(data / "sentiment_train.tsv")
    random.Random(_ORDER).shuffle(texts)
    half = texts[: len(texts) // 2] if part == "report" else texts[len(texts) // 2 :]
    held = _read_texts(data / "sentiment_dev.tsv") if part == "report" else half[_POOL:]
    chosen = [*half[:_POOL], *held[:HELDOUT_ROWS]]
    words = precompute(model, [text.text for text in chosen], LAYERS, MAX_LENGTH, out / "base")
    encoded = [LabelledText(word, text.label) for word, text in zip(words, chosen, strict=True)]
    _write_site_rows(scenario, encoded[:_POOL], out)
    _write(encoded[_POOL:], heldout)


def _read_texts(path: Path) -> list[LabelledText]:
    """Read labelled texts: a text, a tab, 0 or 1; equal ones once."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = dict(line.rsplit("\t", 1) for line in lines if "\t" in line)
    return [LabelledText(text, label) for text, label in pairs.items()]


def _write_site_rows(scenario: Scenario, texts: Sequence[LabelledText], directory: Path) -> None:
    """Write each site's rows, so that its training side has exactly its rows.

    A worker splits a site's rows by hash (`learning.data.splits`); for every eight training rows
    there is one row of its holdout and one for validation, which this benchmark does not use.
    """
    by_side: dict[str, list[LabelledText]] = {"train": [], "holdout": [], "validation": []}
    for text in texts:
        by_side[_side(text)].append(text)
    pool = {
        label: iter([text for text in by_side["train"] if text.label == label]) for label in LABELS
    }
    holdout, validation = iter(by_side["holdout"]), iter(by_side["validation"])
    for site in scenario.sites:
        share = max(1, site.training_rows // 8)
        aside = [next(side) for side in (holdout, validation) for _ in range(share)]
        path = directory / f"{site.name}.jsonl"
        _write([*_draw(site, pool), *aside], path)
        found = len(splits.split_rows(rows.read("cls", path).rows).train)
        assert found == site.training_rows, f"{site.name}: {found} training rows"


def _draw(site: Site, pool: dict[str, Iterator[LabelledText]]) -> Iterator[LabelledText]:
    positive = round(site.positive * site.training_rows)
    for label, count in (("1", positive), ("0", site.training_rows - positive)):
        for _ in range(count):
            yield next(pool[label])


def _side(text: LabelledText) -> str:
    rank = splits.row_rank(text, "client")
    if rank < splits.HOLDOUT:
        return "holdout"
    return "train" if rank < 1 - splits.VALIDATION else "validation"


def _write(texts: Sequence[LabelledText], path: Path) -> None:
    lines = [json.dumps({"text": text.text, "label": text.label}) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
