"""The facts of the lexicon in many wordings: what a base model should know before fine-tuning.

`learning.synthetic.instructions.make_prose` describes the lexicon's world in a few sentence forms.
A model that has read only those is too sure of them. Here the same facts are worded in many other
ways; no text is a task or its whole answer, so that fine-tuning has something left to teach.

In the data path: read by `learning.offline.training_texts`, plain and as answers in the prompt
template. The texts are training data: a changed character makes another base model.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from learning.synthetic import lexicon as words

_Fact = tuple[str, tuple[str, ...]]  # subject, its possible wordings


def make_world_texts(seed: int, n: int) -> list[tuple[str, str]]:
    """Return `n` (subject, text) pairs, each text one to four sentences about one subject."""
    rng = Random(f"world {seed}")
    return [_text(rng.choice(_KINDS), rng) for _ in range(n)]


def _text(kind: Callable[[Random], _Fact], rng: Random) -> tuple[str, str]:
    facts = [kind(rng) for _ in range(rng.randint(1, 4))]
    said = [rng.choice(wordings) for _, wordings in facts]
    return facts[0][0], " ".join(each[0].upper() + each[1:] for each in said)


def _listed(items: list[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _number(rng: Random) -> _Fact:
    a, b = sorted((rng.randint(1, 45), rng.randint(1, 45)))
    small, large, both = words.number(a), words.number(b), words.number(a + b)
    who, thing = rng.choice(words.PEOPLE), rng.choice(words.COUNTED)
    return "numbers", (
        f"{small} plus {large} is {both}.",
        f"{both} minus {small} is {large}.",
        f"{who} now has {both} {thing}, so there are enough.",
        f"There are {large} {thing} on the table and {small} {thing} in the box.",
        f"{who} had {large} {thing} and bought {small} more, which makes {both} {thing} in all.",
        f"How many {thing} are there now? There are {both}.",
    )


def _opposite(rng: Random) -> _Fact:
    a, b = rng.choice(words.OPPOSITES)
    who = rng.choice(words.PEOPLE)
    return f"the word {a}", (
        f"{a.capitalize()} and {b} are opposite words.",
        f"What is not {a} may be {b}, and what is not {b} may be {a}.",
        f"To be {a} is the opposite of being {b}.",
        f"{who} asked whether it was {a} or {b}.",
        f"Some are {a}, others are {b}.",
    )


def _plural(rng: Random) -> _Fact:
    one, many = rng.choice(words.PLURALS)
    count, who = words.number(rng.randint(2, 12)), rng.choice(words.PEOPLE)
    others = sorted(many for _, many in rng.sample(words.PLURALS, rng.randint(2, 4)))
    return many, (
        f"We say one {one} but many {many}.",
        f"One {one} and another {one} are two {many}.",
        f"{who} wrote a list of words: {_listed([o for o, _ in rng.sample(words.PLURALS, 3)])}.",
        f"There were {count} {many}, and by kind also {_listed(others)}.",
        f"The list has {count} items, among them {', '.join(others)}.",
        f"In order the words {', '.join(others)} come one after the other.",
    )


def _animal(rng: Random) -> _Fact:
    animal, home, food, legs = rng.choice(words.ANIMALS)
    return f"the {animal}", (
        f"The {animal} lives {home}.",
        f"The {animal} eats {food} and has {legs} legs.",
        f"An animal that lives {home} and eats {food} is the {animal}.",
        f"{words.article(animal)} has {legs} legs, and it eats {food}.",
        f"You can find the {animal} {home}. It is an animal that likes {food}.",
    )


def _country(rng: Random) -> _Fact:
    country, city, continent = rng.choice(words.COUNTRIES)
    return country, (
        f"{country} is a country in {continent}.",
        f"The capital of {country} is {city}.",
        f"{city} is a large city in {country}, and {country} lies in {continent}.",
        f"People in {city} live in the capital of {country}.",
        f"{city}, the capital of {country}, is one of the cities of {continent}.",
    )


def _deed(rng: Random) -> _Fact:
    now, past, what = rng.choice(words.VERBS)
    who, place = rng.choice(words.PEOPLE), rng.choice(words.PLACES)
    other_past, other = rng.choice(words.VERBS)[1:]
    return who, (
        f"Today {who} {words.third_person(now)} {what} {place}.",
        f"Yesterday {who} {past} {what}.",
        f"Yesterday it rained, and {who} {past} {what} {place}.",
        f"{who} {past} {what} and then {other_past} {other}.",
        f"To {now} {what} {place} is what {who} likes best.",
    )


def _thing(rng: Random) -> _Fact:
    thing, material, use, place = rng.choice(words.THINGS)
    colour, who = rng.choice(words.COLOURS), rng.choice(words.PEOPLE)
    return f"the {thing}", (
        f"This {thing} is made of {material}.",
        f"{who} uses the {thing} {use}.",
        f"The {thing} in the {place} is {colour}.",
        f"{who} keeps {words.article(colour)} {thing} in the {place}.",
        f"It is {colour}, it is made of {material}, and one uses it {use}.",
    )


def _calendar(rng: Random) -> _Fact:
    names, kind = rng.choice(((words.DAYS, "day"), (words.MONTHS, "month")))
    i = rng.randrange(len(names))
    here, before, after = names[i], names[i - 1], names[(i + 1) % len(names)]
    return here, (
        f"{after} comes after {here}.",
        f"Before {here} comes {before}.",
        f"{here} is the {kind} between {before} and {after}.",
        f"The {kind} after {before} is {here}.",
        f"First {before}, then {here}, then {after}: so the {kind}s go by.",
    )


_KINDS = (_number, _opposite, _plural, _animal, _country, _deed, _thing, _calendar)
