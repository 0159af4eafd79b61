"""Reviews from two fields that no film critic writes about: what a federation may meet after films.

`machines` (household appliances) and `hospital` (stays there). A classifier that was trained on
film reviews is unsure of them, since they state facts, some with irony; from one or two hundred of
them it learns which facts are good. Nothing in them is to be learned by heart: reviews to measure
by hold no statement that is in one to learn from (`statements.UNHEARD`), only the same aspects,
subjects, openings and frames.

Data path: here → `benchmarks.incremental`, which feeds them to a client's inbox. Like
`learning.synthetic.sentiment`, deterministic by seed on every platform.
"""

from __future__ import annotations

from random import Random

from benchmarks.statements import DOMAINS, UNHEARD, Aspect, Domain
from learning.data.row_types import LabelledText
from learning.synthetic import lexicon as words
from learning.synthetic.sentiment import LABELS

NAMES = tuple(DOMAINS)
"""The domains that there are."""

_TRIES = 100  # draws for a review that is new; there are a hundred thousand
_OPENED = 0.5  # share of reviews that begin with a neutral sentence
_FRAMES = ("{0}.", "{0}, and {1}.", "{0}. {1}.", "{1}. {0}.", "{0}; {1}.")


def reviews(domain: str, seed: int, n: int, *, unheard: bool = False) -> list[LabelledText]:
    """`n` distinct reviews, half of each of `LABELS`, in mixed order.

    Args:
        domain: One of `NAMES`.
        seed: Of all that is drawn.
        n: How many.
        unheard: Of the statements that are for measuring only; otherwise of the others only.
    """
    rng = Random(f"{domain} {seed} {unheard}")  # a string seeds by its digest: the same everywhere
    seen: set[str] = set()
    rows = []
    for i in range(n):
        for _ in range(_TRIES):
            text = _review(DOMAINS[domain], bool(i % 2), rng, unheard=unheard)
            if text not in seen:
                break
        seen.add(text)
        rows.append(LabelledText(text, LABELS[i % 2]))
    rng.shuffle(rows)
    return rows


def flipped(rows: list[LabelledText]) -> list[LabelledText]:
    """The same texts, each with the other label: a user who is mistaken, or means harm."""
    other = dict(zip(LABELS, reversed(LABELS), strict=True))
    return [LabelledText(row.text, other[row.label]) for row in rows]


def statements(aspect: Aspect, good: bool, *, unheard: bool) -> list[str]:
    """What one side of an aspect offers."""
    said = aspect[not good].split("|")
    return said[-UNHEARD:] if unheard else said[:-UNHEARD]


def _review(domain: Domain, good: bool, rng: Random, *, unheard: bool) -> str:
    subject = rng.choice(domain.subjects)
    aspects = rng.sample([*domain.common, *subject.aspects], 2)
    said = [rng.choice(statements(aspect, good, unheard=unheard)) for aspect in aspects]
    frame = rng.choice(_FRAMES)
    verdict = ". ".join(_capital(s) for s in frame.format(*said).split(". "))
    if rng.random() >= _OPENED:
        return verdict
    opening = rng.choice(domain.openings).format(
        name=rng.choice(subject.names),
        month=rng.choice(words.MONTHS),
        day=rng.choice(words.DAYS),
        who=rng.choice(words.PEOPLE),
    )
    return f"{opening} {verdict}"


def _capital(sentence: str) -> str:
    return f"{sentence[0].upper()}{sentence[1:]}"
