"""Synthetic instructions with checkable answers, and prose for pretraining.

Everything runs without a download, so a federation needs text that it may ship, that has labels to
partition by, and whose answers can be checked. Ten topics, each a function from a random generator
to one row; the wording varies, the answer follows from the words of `learning.synthetic.lexicon`.
Deterministic by seed, on every platform.

Data path: here, or `learning.data.rows` (a file) → `learning.data.shards`. `make_prose` is read by
`learning.offline.training_texts`; it describes the same world in sentences and holds no task or
answer. The texts are training data: do not change a character.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from learning.data.row_types import Instruction
from learning.synthetic import lexicon as words

_Text = tuple[str, str, str]  # instruction, input, output


def make_instructions(seed: int, n: int) -> list[Instruction]:
    """Return `n` labelled rows, the topics in equal shares and in mixed order.

    Rows are distinct while a topic has new ones (several hundred each); beyond that they repeat.
    """
    rng = Random(f"instructions {seed}")  # a string seeds by its digest: the same everywhere
    seen: set[_Text] = set()
    rows = []
    for i in range(n):
        topic = TOPICS[i % len(TOPICS)]
        text = _unseen(_MAKERS[topic], rng, seen)
        rows.append(Instruction(*text, topic=topic))
    rng.shuffle(rows)
    return rows


def make_prose(seed: int, n: int) -> list[str]:
    """Return `n` paragraphs of three to six plain declarative sentences over the same lexicon."""
    rng = Random(f"prose {seed}")
    return [
        " ".join(rng.choice(_SENTENCES)(rng) for _ in range(rng.randint(3, 6))) for _ in range(n)
    ]


def _unseen(make: Callable[[Random], _Text], rng: Random, seen: set[_Text]) -> _Text:
    for _ in range(30):
        text = make(rng)
        if text not in seen:
            break
    seen.add(text)
    return text


def _arithmetic(rng: Random) -> _Text:
    a, b, who = rng.randint(2, 40), rng.randint(2, 40), rng.choice(words.PEOPLE)
    thing = rng.choice(words.COUNTED)
    if rng.random() < 0.5:
        a, b = max(a, b), min(a, b)
        sum_, sign, verb = a - b, "minus", "gives away"
    else:
        sum_, sign, verb = a + b, "plus", "gets"
    x, y, z = words.number(a), words.number(b), words.number(sum_)
    answer = f"{x.capitalize()} {sign} {y} is {z}, so {who} has {z} {thing} now."
    if rng.random() < 0.5:
        return (
            f"{who} has {x} {thing} and {verb} {y}. How many {thing} does {who} have now?",
            "",
            answer,
        )
    return "Solve the problem and show the sum.", f"{who} has {x} {thing} and {verb} {y}.", answer


def _opposites(rng: Random) -> _Text:
    pairs = [p if rng.random() < 0.5 else (p[1], p[0]) for p in rng.sample(words.OPPOSITES, 2)]
    (a, not_a), (b, not_b) = pairs
    answer = f"The opposite of {a} is {not_a}, and the opposite of {b} is {not_b}."
    if rng.random() < 0.5:
        return "Give the opposite of each word.", f"{a}, {b}", answer
    return f"What are the opposites of {a} and {b}?", "", answer


def _sorting(rng: Random) -> _Text:
    given = rng.sample([one for one, _ in words.PLURALS], rng.randint(3, 5))
    ordered = ", ".join(sorted(given))
    ask = ("Sort these words from A to Z.", "Put the words into alphabetical order.")
    return rng.choice(ask), ", ".join(given), f"In alphabetical order the words are: {ordered}."


def _plurals(rng: Random) -> _Text:
    (a, many_a), (b, many_b) = rng.sample(words.PLURALS, 2)
    answer = f"One {a} becomes many {many_a}, and one {b} becomes many {many_b}."
    if rng.random() < 0.5:
        return "Write the plural form of both nouns.", f"{a}, {b}", answer
    return f"What are the plurals of {a} and {b}?", "", answer


def _animals(rng: Random) -> _Text:
    animal, home, food, legs = rng.choice(words.ANIMALS)
    who, place = rng.choice(words.PEOPLE), rng.choice(words.PLACES)
    answer = f"The {animal} is an animal with {legs} legs. It lives {home} and it eats {food}."
    asks = (
        f"Tell {who} where the {animal} lives and what it eats.",
        f"{who} saw {words.article(animal)} {place}. What do you know about this animal?",
        f"Describe the life of the {animal} for {who}.",
    )
    return rng.choice(asks), "", answer


def _capitals(rng: Random) -> _Text:
    (a, city_a, land_a), (b, city_b, land_b) = rng.sample(words.COUNTRIES, 2)
    answer = (
        f"{city_a} is the capital of {a} in {land_a}. {city_b} is the capital of {b} in {land_b}."
    )
    if rng.random() < 0.5:
        return "Name the capital and the continent of each country.", f"{a}, {b}", answer
    return f"Which cities are the capitals of {a} and {b}, and on which continents?", "", answer


def _past_tense(rng: Random) -> _Text:
    who, place = rng.choice(words.PEOPLE), rng.choice(words.PLACES)
    (now_a, past_a, what_a), (now_b, past_b, what_b) = rng.sample(words.VERBS, 2)
    now_a, now_b = words.third_person(now_a), words.third_person(now_b)
    given = f"{who} {now_a} {what_a} and {now_b} {what_b} {place}."
    ask = ("Rewrite the sentence in the past tense.", "Say that this happened yesterday.")
    return (
        rng.choice(ask),
        given,
        f"Yesterday {who} {past_a} {what_a} and {past_b} {what_b} {place}.",
    )


def _counting(rng: Random) -> _Text:
    pool = rng.sample(words.PLURALS, 3)
    drawn = [rng.choice(pool) for _ in range(rng.randint(4, 8))]
    items = [many for _, many in drawn]
    counts = [
        f"{words.number(drawn.count(noun))} {noun[drawn.count(noun) > 1]}"
        for noun in sorted(set(drawn))
    ]
    total = words.number(len(items))
    answer = f"There are {total} items in the list. By kind: {', '.join(counts)}."
    ask = ("Count the items in this list.", "How many things of each kind are in the list?")
    return rng.choice(ask), ", ".join(items), answer


def _description(rng: Random) -> _Text:
    thing, material, use, place = rng.choice(words.THINGS)
    colour, who = rng.choice(words.COLOURS), rng.choice(words.PEOPLE)
    answer = (
        f"This {thing} is {colour} and made of {material}. "
        f"{who} keeps it in the {place} and uses it {use}."
    )
    if rng.random() < 0.5:
        return f"Describe the {colour} {thing} of {who} in two sentences.", "", answer
    return "Describe the object in two sentences.", f"{who}, {thing}, {colour}", answer


def _calendar(rng: Random) -> _Text:
    names, kind = (words.DAYS, "day") if rng.random() < 0.5 else (words.MONTHS, "month")
    i, who = rng.randrange(len(names)), rng.choice(words.PEOPLE)
    before, after = names[i - 1], names[(i + 1) % len(names)]
    answer = (
        f"The {kind} before {names[i]} is {before}, and the {kind} after {names[i]} is {after}."
    )
    asks = (
        f"{who} asks which {kind}s come before and after {names[i]}.",
        f"Tell {who} the neighbours of {names[i]} in the calendar.",
    )
    return rng.choice(asks), "", answer


_MAKERS: dict[str, Callable[[Random], _Text]] = {
    "arithmetic": _arithmetic,
    "opposites": _opposites,
    "sorting": _sorting,
    "plurals": _plurals,
    "animals": _animals,
    "capitals": _capitals,
    "past tense": _past_tense,
    "counting": _counting,
    "description": _description,
    "calendar": _calendar,
}
TOPICS = tuple(_MAKERS)
"""Labels of the rows, in a fixed order."""


def _does(rng: Random) -> str:
    now, past, what = rng.choice(words.VERBS)
    who, place = rng.choice(words.PEOPLE), rng.choice(words.PLACES)
    if rng.random() < 0.5:
        return f"{who} {past} {what} {place} last week."
    return f"Every morning {who} {words.third_person(now)} {what} {place}."


def _has(rng: Random) -> str:
    who, other = rng.sample(words.PEOPLE, 2)
    a, b = rng.sample(words.COUNTED, 2)
    return (
        f"{who} has {words.number(rng.randint(2, 80))} {a}, "
        f"while {other} has {words.number(rng.randint(2, 80))} {b}."
    )


def _travels(rng: Random) -> str:
    country, city, continent = rng.choice(words.COUNTRIES)
    who, month = rng.choice(words.PEOPLE), rng.choice(words.MONTHS)
    return f"In {month} {who} went to {city} to see {country} and the rest of {continent}."


def _watches(rng: Random) -> str:
    animal, home, food, _ = rng.choice(words.ANIMALS)
    return f"{rng.choice(words.PEOPLE)} watched the {animal} that looked for {food} {home}."


def _owns(rng: Random) -> str:
    thing, material, use, place = rng.choice(words.THINGS)
    colour, day = rng.choice(words.COLOURS), rng.choice(words.DAYS)
    return f"On {day} the {colour} {thing} of {material} lay in the {place}, ready {use}."


def _compares(rng: Random) -> str:
    a, b = rng.choice(words.OPPOSITES)
    one, many = rng.choice(words.PLURALS)
    return f"One {one} was {a} but the other {many} were {b}."


_SENTENCES = (_does, _has, _travels, _watches, _owns, _compares)
