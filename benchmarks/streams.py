"""What `benchmarks.incremental` feeds and measures by: films, then two made domains, then lies.

Film reviews are read from a folder with `sentiment_train.tsv` and `sentiment_dev.tsv` (a sentence,
a tab, 0 or 1: the binary Stanford Sentiment Treebank has this form). The other domains are made
(`benchmarks.domains`). Nothing that is learned is in what measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks import domains
from common.errors import DataError
from learning.data import rows
from learning.data.row_types import LabelledText
from learning.synthetic.sentiment import LABELS

FILMS = "films"
LIES = "flipped"
DOMAINS = (FILMS, *domains.NAMES)
FILES = ("sentiment_train.tsv", "sentiment_dev.tsv")
_MEANT = {"0": LABELS[0], "1": LABELS[1]}
_MEASURED_BY = 99  # the seed of made reviews that measure: their statements are others anyway


@dataclass(frozen=True)
class Lesson:
    """What one client is told at once.

    Attributes:
        domain: Where it is from; `LIES` are reviews of the last domain with the other label.
        client: Who is told.
        rows: The reviews.
    """

    domain: str
    client: str
    rows: tuple[LabelledText, ...]

    @property
    def task(self) -> str:
        """What its sender says it is about: who lies does not say so."""
        return DOMAINS[-1] if self.domain == LIES else self.domain


@dataclass(frozen=True)
class Course:
    """All rows of an experiment.

    Attributes:
        dealt: Film reviews that the federation is trained on.
        tests: Reviews to measure by, for each of `DOMAINS`.
        steps: What the learning clients are told, step by step: a lesson for each of them.
    """

    dealt: tuple[LabelledText, ...]
    tests: Mapping[str, tuple[LabelledText, ...]]
    steps: tuple[tuple[Lesson, ...], ...]


@dataclass(frozen=True)
class Amounts:
    """How much there is of everything.

    Attributes:
        dealt: Film reviews for the federation; 0 for all that the stream leaves.
        tests: Reviews of each domain to measure by, at most.
        films: Film reviews that each client is told, in steps.
        batches: Steps in each made domain.
        batch: Reviews in a step, for each client.
        lies: Reviews of the burst, for each client.
    """

    dealt: int = 0
    tests: int = 400
    films: int = 50
    batches: int = 4
    batch: int = 50
    lies: int = 100


def course(folder: Path, clients: Sequence[str], amounts: Amounts, seed: int) -> Course:
    """The rows of an experiment.

    Args:
        folder: With the film reviews.
        clients: Those who learn from users.
        amounts: How many.
        seed: Of what is drawn.

    Raises:
        DataError: A file is missing or has other labels, or there are too few reviews.
    """
    train, dev = (_films(folder / name) for name in FILES)
    rng = Random(f"course {seed}")
    rng.shuffle(train)
    rng.shuffle(dev)
    each = amounts.batches * amounts.batch
    told = amounts.films * len(clients)
    if len(train) < told + max(amounts.dealt, 100 * len(clients)):
        raise DataError(
            f"{folder / FILES[0]} has {len(train)} reviews, too few", "use smaller amounts"
        )
    films = {client: train[i : told : len(clients)] for i, client in enumerate(clients)}
    tests = {FILMS: tuple(dev[: amounts.tests])}
    for name in domains.NAMES:
        tests[name] = tuple(domains.reviews(name, _MEASURED_BY, amounts.tests, unheard=True))
    steps: list[tuple[Lesson, ...]] = []
    for name in DOMAINS:
        pool = films if name == FILMS else _made(name, clients, each, seed)
        for start in range(0, amounts.films if name == FILMS else each, amounts.batch):
            part = slice(start, start + amounts.batch)
            steps.append(tuple(Lesson(name, c, tuple(pool[c][part])) for c in clients))
    if amounts.lies:
        pool = _made(DOMAINS[-1], clients, amounts.lies, seed + 1)
        lies = {client: domains.flipped(said) for client, said in pool.items()}
        steps.append(tuple(Lesson(LIES, c, tuple(lies[c])) for c in clients))
    dealt = train[told:][: amounts.dealt or None]
    return Course(tuple(dealt), tests, tuple(steps))


def _made(
    name: str, clients: Sequence[str], each: int, seed: int
) -> dict[str, Sequence[LabelledText]]:
    """Reviews of one domain for each client, all distinct."""
    found = domains.reviews(name, seed, each * len(clients))
    return {client: found[i * each : (i + 1) * each] for i, client in enumerate(clients)}


def _films(path: Path) -> list[LabelledText]:
    if not path.is_file():
        raise DataError(
            f"there is no {path}",
            f"name with --data a folder that holds {' and '.join(FILES)}: a sentence, a tab, 0 or 1"
            " on each line, as in the binary Stanford Sentiment Treebank (SST-2)",
        )
    found = rows.load("cls", str(path), on_message=lambda text: None).rows
    if odd := {row.label for row in found} - _MEANT.keys():
        raise DataError(f"{path} has the label {min(odd)!r}", "labels are 0 (bad) and 1 (good)")
    return [LabelledText(row.text, _MEANT[row.label]) for row in found]
