"""Synthetic preference pairs: a right answer and a worse one to questions about the lexicon.

Five kinds of worse answer, drawn equally: with a wrong fact, incomplete, an answer to another
question, unkind, and one that repeats itself. Neither words nor length alone decide a pair: unkind
remarks are made of the words of kind ones, kind ones accompany wrong answers as often as right
ones, and the kinds of fault lengthen as often as they shorten.

Data path: here, or `learning.data.rows` (a file) → `learning.data.shards`. Like
`learning.synthetic.instructions`, deterministic by seed on every platform. The texts are training
data: do not change a character.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from learning.data.row_types import Instruction, PreferencePair, RatedAnswer
from learning.synthetic import lexicon as words
from learning.synthetic.instructions import make_instructions

_POOL = 400  # answers to other questions, 40 per topic
_GOOD = 0.6  # share of good answers: users do not rate in equal parts
_TRIES = 100  # draws for a pair that is new; each prompt has thousands
_NUMBERS = tuple(map(words.number, range(100)))
_Answers = Mapping[str, Sequence[str]]  # by topic


def make_preferences(seed: int, n: int) -> list[PreferencePair]:
    """Return `n` distinct pairs; the topics of our instructions in equal shares and in mixed order.

    Prompts are drawn apart from those of `make_instructions(seed, n)`; a question may still be in
    both, as there are only so many.
    """
    rng = Random(f"preferences {seed}")  # a string seeds by its digest: the same everywhere
    pool = defaultdict(list)
    for row in make_instructions(-1 - seed, _POOL):
        pool[row.topic].append(row.output)
    seen: set[PreferencePair] = set()
    pairs = []
    for row in make_instructions(-1 - seed, n):
        pair = _unseen(row, pool, rng, seen)
        seen.add(pair)
        pairs.append(pair)
    return pairs


def make_ratings(seed: int, n: int) -> list[RatedAnswer]:
    """Return `n` rated answers: one of the two answers of each pair, three in five of them good."""
    rng = Random(f"ratings {seed}")
    ratings = []
    for pair in make_preferences(seed, n):
        good = rng.random() < _GOOD
        answer = pair.chosen if good else pair.rejected
        ratings.append(RatedAnswer(pair.prompt, answer, good, pair.topic))
    return ratings


def _unseen(
    row: Instruction, pool: _Answers, rng: Random, seen: set[PreferencePair]
) -> PreferencePair:
    for _ in range(_TRIES):
        pair = _pair(row, pool, rng)
        if pair not in seen:
            break
    return pair


def _pair(row: Instruction, pool: _Answers, rng: Random) -> PreferencePair:
    return PreferencePair(
        prompt="\n".join(filter(None, (row.instruction, row.input))),
        chosen=_with_remarks([row.output], rng, (0, 1, 1, 2)),
        rejected=rng.choice(_WORSE)(row, pool, rng),
        topic=row.topic,
    )


def _with_remarks(
    sentences: Sequence[str],
    rng: Random,
    remarks: Sequence[int] = (0, 0, 1, 1, 2),
    unkind: bool = False,
) -> str:
    """Return an answer with remarks, each before or after it.

    Other worse answers have fewer than chosen ones, since unkind ones must have some: over all,
    both sides hold the words of remarks alike.
    """
    around: tuple[list[str], list[str]] = ([], [])
    for pair in rng.sample(words.MANNERS, rng.choice(remarks)):
        rng.choice(around).append(pair[unkind])
    return " ".join([*around[0], *sentences, *around[1]])


def _wrong(row: Instruction, _: _Answers, rng: Random) -> str:
    return _with_remarks([_FALSIFIED.get(row.topic, _other_fact)(row, rng)], rng)


def _incomplete(row: Instruction, _: _Answers, rng: Random) -> str:
    if row.topic == "sorting":
        head, items = row.output[:-1].split(": ")
        kept = items.split(", ")
        del kept[rng.randrange(len(kept))]
        return _with_remarks([f"{head}: {', '.join(kept)}."], rng)
    if row.topic == "past tense":
        first, rest = row.output.split(" and ")
        place = next(place for place in words.PLACES if rest.endswith(f"{place}."))
        return _with_remarks([f"{first} {place}."], rng)
    parts = _parts(row.output)
    del parts[rng.randrange(len(parts))]
    return _with_remarks(parts, rng)


def _of_another(row: Instruction, pool: _Answers, rng: Random) -> str:
    """Return the answer to another question.

    The same statements in another order would be right here, too, and are left out.
    """
    own = sorted(_words(row.output))
    return _with_remarks(
        [rng.choice([one for one in pool[row.topic] if sorted(_words(one)) != own])], rng
    )


def _unkind(row: Instruction, _: _Answers, rng: Random) -> str:
    if rng.random() < 0.5:
        return _with_remarks([row.output], rng, (1, 1, 2), unkind=True)
    return " ".join(unkind for _, unkind in rng.sample(words.MANNERS, rng.choice((2, 3))))


def _rambling(row: Instruction, _: _Answers, rng: Random) -> str:
    parts = _parts(row.output)
    again = rng.sample(parts, rng.randint(1, len(parts)))
    return _with_remarks([row.output, *again], rng)


_WORSE: tuple[Callable[[Instruction, _Answers, Random], str], ...] = (
    _wrong,
    _incomplete,
    _of_another,
    _unkind,
    _rambling,
)


def _parts(answer: str) -> list[str]:
    """Return the statements of an answer, each as a sentence."""
    parts = re.split(r"\. |, so |, and ", answer.removesuffix("."))
    return [f"{part[0].upper()}{part[1:]}." for part in parts]


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())


def _false_sum(row: Instruction, rng: Random) -> str:
    """Replace the result, wherever it is named, by one that is off by a little or by ten."""
    head, tail = row.output.split(" is ")
    result = tail.partition(",")[0]
    n = _NUMBERS.index(result)
    other = rng.choice([n + by for by in (-10, -2, -1, 1, 2, 10) if 0 <= n + by < 100])
    tail = re.sub(rf"\b{result}\b", words.number(other), tail)
    return f"{head} is {tail}"


def _false_order(row: Instruction, rng: Random) -> str:
    head, items = row.output[:-1].split(": ")
    order = items.split(", ")
    i, j = rng.sample(range(len(order)), 2)
    order[i], order[j] = order[j], order[i]
    return f"{head}: {', '.join(order)}."


def _false_count(row: Instruction, rng: Random) -> str:
    """Replace a number in one place; never by `one`, which goes with another form of the noun."""
    matches = [m for m in re.finditer(r"\w+", row.output) if m[0] in _NUMBERS[2:]]
    place = rng.choice(matches)
    n = _NUMBERS.index(place[0])
    other = words.number(rng.choice([n + by for by in (-2, -1, 1, 2) if n + by >= 2]))
    return row.output[: place.start()] + other + row.output[place.end() :]


def _other_fact(row: Instruction, rng: Random) -> str:
    """Replace a fact by another of the same sort; no fact stands for two subjects alike."""
    options = [
        (place, sort)
        for sort in _FACTS[row.topic]
        for place in re.finditer(rf"\b(?:{'|'.join(sorted(sort, key=len)[::-1])})\b", row.output)
    ]
    place, sort = rng.choice(options)
    other = rng.choice(
        [fact for fact in sorted(sort) if fact not in row.output and place[0] not in fact]
    )
    return row.output[: place.start()] + other + row.output[place.end() :]


_FALSIFIED: dict[str, Callable[[Instruction, Random], str]] = {
    "arithmetic": _false_sum,
    "sorting": _false_order,
    "counting": _false_count,
}
_FACTS: dict[str, tuple[set[str], ...]] = {  # by topic: facts of one sort, which may be swapped
    "opposites": ({word for pair in words.OPPOSITES for word in pair},),
    "plurals": ({many for _, many in words.PLURALS},),
    "animals": (
        {home for _, home, _, _ in words.ANIMALS},
        {food for _, _, food, _ in words.ANIMALS},
        {f"{legs} legs" for *_, legs in words.ANIMALS},
    ),
    "capitals": (
        {city for _, city, _ in words.COUNTRIES},
        {continent for *_, continent in words.COUNTRIES},
    ),
    "past tense": (
        set(words.PEOPLE),
        set(words.PLACES),
        {past for _, past, _ in words.VERBS},
        {what for *_, what in words.VERBS},
    ),
    "description": (
        set(words.COLOURS),
        {material for _, material, _, _ in words.THINGS},
        {use for _, _, use, _ in words.THINGS},
        {place for *_, place in words.THINGS},
    ),
    "calendar": (set(words.DAYS), set(words.MONTHS)),
}
