from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.domains import NAMES, flipped, reviews, statements
from benchmarks.statements import DOMAINS, Aspect
from learning.data.row_types import LabelledText
from learning.synthetic.sentiment import LABELS


def aspects(name: str) -> list[Aspect]:
    domain = DOMAINS[name]
    return [*domain.common, *(own for subject in domain.subjects for own in subject.aspects)]


def told(rows: list[LabelledText], name: str, *, unheard: bool) -> list[str]:
    """The labels that the statements in the texts have; `?` where none or both sides speak."""
    sides = {
        label: [
            statement.lower()
            for aspect in aspects(name)
            for statement in statements(aspect, label == LABELS[1], unheard=unheard)
        ]
        for label in LABELS
    }
    found = [
        [label for label, said in sides.items() if any(s in row.text.lower() for s in said)]
        for row in rows
    ]
    return [labels[0] if len(labels) == 1 else "?" for labels in found]


@pytest.mark.parametrize("name", NAMES)
def test_reviews_are_distinct_and_half_of_each_label_and_the_same_by_seed(name: str) -> None:
    rows = reviews(name, 0, 3000)
    assert len({row.text for row in rows}) == 3000
    assert Counter(row.label for row in rows) == {"negative": 1500, "positive": 1500}
    assert reviews(name, 5, 50) == reviews(name, 5, 50) != reviews(name, 6, 50)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unheard", [False, True])
def test_a_label_follows_from_statements_of_its_own_half_only(name: str, unheard: bool) -> None:
    rows = reviews(name, 1, 500, unheard=unheard)
    assert told(rows, name, unheard=unheard) == [row.label for row in rows]
    assert set(told(rows, name, unheard=not unheard)) == {"?"}


@pytest.mark.parametrize("name", NAMES)
def test_words_learned_by_heart_do_not_tell_reviews_to_measure_by(name: str) -> None:
    learn, same, other = (
        reviews(name, 2, 200),
        reviews(name, 3, 400),
        reviews(name, 2, 400, unheard=True),
    )
    count = CountVectorizer(token_pattern=r"\w+").fit([row.text for row in learn])

    def figures(rows: list[LabelledText]) -> tuple[object, list[str]]:
        return count.transform([row.text for row in rows]), [row.label for row in rows]

    model = LogisticRegression(max_iter=1000).fit(*figures(learn))
    assert model.score(*figures(same)) > 0.85
    assert model.score(*figures(other)) < 0.7


def test_flipped_reviews_say_the_same_and_claim_the_opposite() -> None:
    rows = reviews("hospital", 0, 20)
    assert [row.text for row in flipped(rows)] == [row.text for row in rows]
    assert all(a.label != b.label for a, b in zip(rows, flipped(rows), strict=True))
