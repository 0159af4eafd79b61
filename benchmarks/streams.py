"""Rows of the experiment `benchmarks.incremental`: films, two synthetic domains, flipped labels.

Film reviews are read from a folder with `sentiment_train.tsv` and `sentiment_dev.tsv` (a sentence,
a tab, 0 or 1, as in the binary Stanford Sentiment Treebank). The other domains are synthetic
(`benchmarks.domains`). No row that is learned is used to measure.
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
FLIPPED = "flipped"
DOMAINS = (FILMS, *domains.NAMES)
FILES = ("sentiment_train.tsv", "sentiment_dev.tsv")
_LABEL_OF_DIGIT = {"0": LABELS[0], "1": LABELS[1]}
_TEST_SEED = 99  # of synthetic reviews to measure on; their statements differ anyway


@dataclass(frozen=True)
class StreamBatch:
    """Reviews that one client receives at once.

    Attributes:
        domain: Domain; `FLIPPED` is the last domain with opposite labels.
        client: The client.
        rows: The reviews.
    """

    domain: str
    client: str
    rows: tuple[LabelledText, ...]

    @property
    def task(self) -> str:
        """Stream that the sender names; flipped labels are not declared as such."""
        return DOMAINS[-1] if self.domain == FLIPPED else self.domain


@dataclass(frozen=True)
class StreamRows:
    """All rows of an experiment.

    Attributes:
        dealt: Film reviews that the federation is trained on.
        tests: Reviews to measure on, for each of `DOMAINS`.
        steps: Batches of the learning clients, step by step, one for each client.
    """

    dealt: tuple[LabelledText, ...]
    tests: Mapping[str, tuple[LabelledText, ...]]
    steps: tuple[tuple[StreamBatch, ...], ...]


@dataclass(frozen=True)
class StreamSizes:
    """Numbers of rows in an experiment.

    Attributes:
        dealt: Film reviews for the federation; 0 for all that the stream leaves.
        tests: Limit on the reviews of each domain to measure on.
        films: Film reviews for each client, in steps.
        batches: Steps of each synthetic domain.
        batch: Reviews of a step, for each client.
        flipped: Reviews with flipped labels, for each client.
    """

    dealt: int = 0
    tests: int = 400
    films: int = 50
    batches: int = 4
    batch: int = 50
    flipped: int = 100


def stream_rows(folder: Path, clients: Sequence[str], sizes: StreamSizes, seed: int) -> StreamRows:
    """Return the rows of an experiment.

    Args:
        folder: Folder with the film reviews.
        clients: Clients that learn from users.
        sizes: Numbers of rows.
        seed: Seed of the random choices.

    Raises:
        DataError: A file is missing or has other labels, or there are too few reviews.
    """
    train, dev = (_films(folder / name) for name in FILES)
    rng = Random(f"course {seed}")
    rng.shuffle(train)
    rng.shuffle(dev)
    each = sizes.batches * sizes.batch
    streamed = sizes.films * len(clients)
    if len(train) < streamed + max(sizes.dealt, 100 * len(clients)):
        raise DataError(
            f"{folder / FILES[0]} has {len(train)} reviews, too few", "use smaller sizes"
        )
    films = {client: train[i : streamed : len(clients)] for i, client in enumerate(clients)}
    tests = {FILMS: tuple(dev[: sizes.tests])}
    for name in domains.NAMES:
        tests[name] = tuple(domains.reviews(name, _TEST_SEED, sizes.tests, held_out=True))
    steps: list[tuple[StreamBatch, ...]] = []
    for name in DOMAINS:
        pool = films if name == FILMS else _synthetic(name, clients, each, seed)
        for start in range(0, sizes.films if name == FILMS else each, sizes.batch):
            part = slice(start, start + sizes.batch)
            steps.append(tuple(StreamBatch(name, c, tuple(pool[c][part])) for c in clients))
    if sizes.flipped:
        pool = _synthetic(DOMAINS[-1], clients, sizes.flipped, seed + 1)
        flipped = {client: domains.flipped(made) for client, made in pool.items()}
        steps.append(tuple(StreamBatch(FLIPPED, c, tuple(flipped[c])) for c in clients))
    dealt = train[streamed:][: sizes.dealt or None]
    return StreamRows(tuple(dealt), tests, tuple(steps))


def _synthetic(
    name: str, clients: Sequence[str], each: int, seed: int
) -> dict[str, Sequence[LabelledText]]:
    """Return reviews of one domain for each client, all distinct."""
    found = domains.reviews(name, seed, each * len(clients))
    return {client: found[i * each : (i + 1) * each] for i, client in enumerate(clients)}


def _films(path: Path) -> list[LabelledText]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist",
            f"give a folder with --data that holds {' and '.join(FILES)}: a sentence, a tab, 0 or 1"
            " on each line, as in the binary Stanford Sentiment Treebank (SST-2)",
        )
    found = rows.load("cls", str(path), on_message=lambda text: None).rows
    if odd := {row.label for row in found} - _LABEL_OF_DIGIT.keys():
        raise DataError(f"{path} has the label {min(odd)!r}", "labels are 0 (bad) and 1 (good)")
    return [LabelledText(row.text, _LABEL_OF_DIGIT[row.label]) for row in found]
