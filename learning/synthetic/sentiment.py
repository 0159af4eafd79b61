"""Synthetic short reviews, each good or bad on the whole: what classification learns offline.

A bag of words all but fails on them by construction: most forms of verdict contain praise and blame
alike, and only a single plain clause is seldom negated, which gives training a first foothold.
Structure decides: negation, which clause is the main or the last one, what is compared with what,
who says it, and whether a sentence is about the thing at all.

Data path: here, or `learning.data.rows` (a file) → `learning.data.shards`. Like
`learning.synthetic.instructions`, deterministic by seed on every platform. The texts are training
data: do not change a character.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from learning.data.row_types import LabelledText
from learning.synthetic import lexicon as words

LABELS = ("negative", "positive")

_NEGATED = ("not at all", "never", "hardly", "by no means", "anything but", "far from")
_NEGATED_SHARE = 0.25
_STRESSED = ("", "really ", "quite ", "truly ", "rather ")
_TRIES = 100  # draws for a review that is new; there are millions
_ASIDE = (  # their being good or bad says nothing about the thing
    "The weather that day was",
    "The bus ride home was",
    "The week before had been",
    "A letter that came the same day was",
)


def make_reviews(seed: int, n: int) -> list[LabelledText]:
    """Return `n` distinct reviews of one or two sentences, half of each label, in mixed order."""
    rng = Random(f"sentiment {seed}")  # a string seeds by its digest: the same everywhere
    seen: set[str] = set()
    rows = []
    for i in range(n):
        text = _unseen(bool(i % 2), rng, seen)
        seen.add(text)
        rows.append(LabelledText(text, LABELS[i % 2]))
    rng.shuffle(rows)
    return rows


def _unseen(good: bool, rng: Random, seen: set[str]) -> str:
    for _ in range(_TRIES):
        text = _review(good, rng)
        if text not in seen:
            break
    return text


@dataclass(frozen=True)
class _Thing:
    """Subject of a review."""

    name: str  # `the film`
    part: str  # `the cast`
    said: tuple[tuple[str, str], ...]  # pairs of praise and blame that fit both


def _review(good: bool, rng: Random) -> str:
    name, parts, own = rng.choice(words.REVIEWED)
    thing = _Thing(f"the {name}", f"the {rng.choice(parts)}", own + words.VERDICTS)
    verdict = rng.choice(_FRAMES)(good, thing, rng)
    verdict = f"{verdict[0].upper()}{verdict[1:]}."
    if rng.random() < 0.5:
        return verdict
    sentences = [verdict, _aside(thing, rng)]
    rng.shuffle(sentences)
    return " ".join(sentences)


def _aside(thing: _Thing, rng: Random) -> str:
    """Return an irrelevant sentence: a bare fact, or praise or blame of something else."""
    if rng.random() < 0.5:
        who, day = rng.choice(words.PEOPLE), rng.choice(words.DAYS)
        return f"{who} told me about {thing.name} on {day}."
    return f"{rng.choice(_ASIDE)} {_opinion(rng.random() < 0.5, thing, rng)}."


def _opinion(good: bool, thing: _Thing, rng: Random) -> str:
    """Return words of praise or blame, or negated words of the opposite."""
    if rng.random() < _NEGATED_SHARE:
        return f"{rng.choice(_NEGATED)} {rng.choice(thing.said)[good]}"
    return f"{rng.choice(_STRESSED)}{rng.choice(thing.said)[not good]}"


def _plain(good: bool, thing: _Thing, rng: Random) -> str:
    return f"{rng.choice((thing.name, thing.part))} was {_opinion(good, thing, rng)}"


def _outcome(good: bool, thing: _Thing, rng: Random) -> str:
    outcome = rng.choice(words.OUTCOMES)
    if rng.random() < _NEGATED_SHARE:
        return f"{thing.name} was {rng.choice(_NEGATED)} {outcome[good]}"
    return f"{thing.name} was {rng.choice(_STRESSED)}{outcome[not good]}"


def _turn(good: bool, thing: _Thing, rng: Random) -> str:
    first, last = _opinion(not good, thing, rng), _opinion(good, thing, rng)
    return rng.choice(
        (
            f"{thing.name} was {first} at first, but {last} in the end",
            f"{thing.name} began {first} and ended {last}",
            f"{thing.part} may be {first}, but {thing.name} was {last}",
        )
    )


def _concession(good: bool, thing: _Thing, rng: Random) -> str:
    minor, main = _opinion(not good, thing, rng), _opinion(good, thing, rng)
    return rng.choice(
        (
            f"although {thing.part} was {minor}, {thing.name} was {main}",
            f"{thing.name} was {main}, although {thing.part} was {minor}",
            f"even if {thing.name} was {minor} here and there, on the whole it was {main}",
            f"on the whole {thing.name} was {main}, even if it was {minor} here and there",
        )
    )


def _comparison(good: bool, thing: _Thing, rng: Random) -> str:
    """Compare with another of its kind.

    "Not as bad" is praise, and so is that the other one looks bad.
    """
    named, than = rng.choice(thing.said), rng.choice(("the last one", "the others"))
    as_much, less = rng.choice(("just", "every bit")), rng.choice(("not nearly", "nowhere near"))
    if rng.random() < 0.5:
        return f"{thing.name} was {as_much} as {named[not good]} as {than}"
    if rng.random() < 0.5:
        return f"{thing.name} was {less} as {named[good]} as {than}"
    return f"next to {thing.name}, {than} looked {named[good]}"


def _degree(good: bool, thing: _Thing, rng: Random) -> str:
    strong, faint = rng.choice(thing.said)[not good], rng.choice(thing.said)[good]
    return rng.choice(
        (
            f"{thing.name} was a little {faint} and above all {strong}",
            f"{thing.name} was above all {strong} and a little {faint}",
            f"{thing.name} was mostly {strong} and only now and then {faint}",
            f"{thing.name} was only now and then {faint} and mostly {strong}",
        )
    )


def _hearsay(good: bool, thing: _Thing, rng: Random) -> str:
    other, own = _opinion(not good, thing, rng), _opinion(good, thing, rng)
    return rng.choice(
        (
            f"I had expected {thing.name} to be {other}, and I found it {own}",
            f"I found {thing.name} {own}, and I had expected it to be {other}",
            f"friends called {thing.name} {other}, to me it was {own}",
            f"to me {thing.name} was {own}, friends called it {other}",
        )
    )


# Plain clauses twice, or training starts on a long plateau: see the note above on its foothold.
_FRAMES: tuple[Callable[[bool, _Thing, Random], str], ...] = (
    _plain,
    _plain,
    _outcome,
    _turn,
    _concession,
    _comparison,
    _degree,
    _hearsay,
)
