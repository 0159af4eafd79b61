"""Synthetic reviews from two domains that a federation may meet after film reviews.

The domains are `machines` (household appliances) and `hospital` (stays in hospital). A classifier
trained on film reviews is unsure about them, since they state facts, some ironically; from one or
two hundred of them it learns which facts are good. Memorising does not help: the reviews to measure
on contain no statement of those to learn from (`statements.HELD_OUT`), only the same aspects,
subjects, openings and frames.

`benchmarks.incremental` puts the reviews into inboxes. Like `learning.synthetic.sentiment`, they
are the same for a seed on every platform.
"""

from __future__ import annotations

from random import Random

from benchmarks.statements import DOMAINS, HELD_OUT, Aspect, Domain
from learning.data.row_types import LabelledText
from learning.synthetic import lexicon as words
from learning.synthetic.sentiment import LABELS

NAMES = tuple(DOMAINS)
"""Names of the domains."""

_TRIES = 100  # attempts to draw a new review; there are a hundred thousand
_OPENING_SHARE = 0.5  # share of reviews that begin with a neutral sentence
_FRAMES = ("{0}.", "{0}, and {1}.", "{0}. {1}.", "{1}. {0}.", "{0}; {1}.")


def reviews(domain: str, seed: int, n: int, *, held_out: bool = False) -> list[LabelledText]:
    """Return `n` distinct reviews in random order, half of them with each of `LABELS`.

    Args:
        domain: One of `NAMES`.
        seed: Seed of the random choices.
        n: Number of reviews.
        held_out: Use only the statements that are reserved for measuring, instead of the others.
    """
    rng = Random(
        f"{domain} {seed} {held_out}"
    )  # a string seeds by its digest, on every platform alike
    seen: set[str] = set()
    rows = []
    for i in range(n):
        for _ in range(_TRIES):
            text = _review(DOMAINS[domain], bool(i % 2), rng, held_out=held_out)
            if text not in seen:
                break
        seen.add(text)
        rows.append(LabelledText(text, LABELS[i % 2]))
    rng.shuffle(rows)
    return rows


def flipped(rows: list[LabelledText]) -> list[LabelledText]:
    """Return the same texts with the opposite labels, as from a mistaken or malicious user."""
    other = dict(zip(LABELS, reversed(LABELS), strict=True))
    return [LabelledText(row.text, other[row.label]) for row in rows]


def statements(aspect: Aspect, good: bool, *, held_out: bool) -> list[str]:
    """Return the statements of an aspect with one label."""
    said = aspect[not good].split("|")
    return said[-HELD_OUT:] if held_out else said[:-HELD_OUT]


def _review(domain: Domain, good: bool, rng: Random, *, held_out: bool) -> str:
    subject = rng.choice(domain.subjects)
    aspects = rng.sample([*domain.common, *subject.aspects], 2)
    said = [rng.choice(statements(aspect, good, held_out=held_out)) for aspect in aspects]
    frame = rng.choice(_FRAMES)
    verdict = ". ".join(_capital(s) for s in frame.format(*said).split(". "))
    if rng.random() >= _OPENING_SHARE:
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
