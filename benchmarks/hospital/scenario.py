"""The scenario: seven sites, a network cut, a site that is lost, and one scale for all times."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from learning.data import rows, splits
from learning.data.row_types import LabelledText

BATCH = 8
HELDOUT_ROWS = 500
LABELS = ("0", "1")
SIDES = ("train", "holdout", "validation")


@dataclass(frozen=True)
class Site:
    """A hospital: its data, and how fast its machine trains.

    Attributes:
        steps: Local steps of a task: one pass over its training rows, `BATCH` rows at a time.
        step_s: Seconds of a step, before they are scaled.
        positive: Share of its training rows with the label 1.
    """

    name: str
    steps: int
    step_s: float
    positive: float

    @property
    def training_rows(self) -> int:
        return self.steps * BATCH


@dataclass(frozen=True)
class Scenario:
    """What happens to the sites, in seconds since the sites began; `scale` divides all times."""

    sites: tuple[Site, ...]
    scale: float
    cut_at_s: float
    cut_s: float
    lost: str
    lost_at_s: float
    end_s: float

    def scaled(self, seconds: float) -> float:
        """Return how long something of the scenario takes here."""
        return seconds / self.scale

    @property
    def slowest_task_s(self) -> float:
        return max(site.steps * site.step_s for site in self.sites)


FULL = Scenario(
    sites=(
        Site("university", steps=40, step_s=3.0, positive=0.5),
        Site("city", steps=20, step_s=12.0, positive=0.6),
        Site("county", steps=12, step_s=6.0, positive=0.4),
        Site("district", steps=8, step_s=4.0, positive=0.5),
        Site("rural", steps=6, step_s=40.0, positive=0.4),
        Site("practice", steps=4, step_s=10.0, positive=0.6),
        Site("clinic", steps=2, step_s=15.0, positive=0.5),
    ),
    scale=3.0,
    cut_at_s=8 * 60.0,
    cut_s=6 * 60.0,
    lost="county",
    lost_at_s=18 * 60.0,
    end_s=27 * 60.0,
)


def read_texts(path: Path) -> list[LabelledText]:
    """Read labelled texts: a text, a tab, 0 or 1."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text, tab, label = line.rpartition("\t")
        if tab and text.strip():
            found.append(LabelledText(text=text, label=label))
    return found


def write_site_rows(
    scenario: Scenario, texts: Sequence[LabelledText], directory: Path, seed: int
) -> None:
    """Write each site's rows to SITE.jsonl, so that its training side has exactly its rows.

    A worker splits a site's rows by hash (`learning.data.splits`); for every eight training rows
    there is one row of its holdout and one for validation, which this benchmark does not use.
    """
    order = random.Random(seed).sample(list(dict.fromkeys(texts)), len(set(texts)))
    by_side = {side: [text for text in order if _side(text) == side] for side in SIDES}
    pool = {label: iter([text for text in by_side["train"] if text.label == label])
            for label in LABELS}  # fmt: skip
    holdout, validation = iter(by_side["holdout"]), iter(by_side["validation"])
    for site in scenario.sites:
        share = max(1, site.training_rows // 8)
        aside = [next(side) for side in (holdout, validation) for _ in range(share)]
        chosen = [*_draw(site, pool), *aside]
        lines = [json.dumps({"text": text.text, "label": text.label}) for text in chosen]
        path = directory / f"{site.name}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found = len(splits.split_rows(rows.load("cls", str(path), on_message=print).rows).train)
        assert found == site.training_rows, f"{site.name}: {found} training rows"


def write_heldout(texts: Sequence[LabelledText], path: Path) -> None:
    """Write the held-out rows, which belong to no site."""
    lines = [json.dumps({"text": t.text, "label": t.label}) for t in texts[:HELDOUT_ROWS]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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
