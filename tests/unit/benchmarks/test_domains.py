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


def implied_labels(rows: list[LabelledText], name: str, *, held_out: bool) -> list[str]:
    """Return the labels that the statements in the texts imply; `?` for none or both."""
    sides = {
        label: [
            statement.lower()
            for aspect in aspects(name)
            for statement in statements(aspect, label == LABELS[1], held_out=held_out)
        ]
        for label in LABELS
    }
    found = [
        [label for label, said in sides.items() if any(s in row.text.lower() for s in said)]
        for row in rows
    ]
    return [labels[0] if len(labels) == 1 else "?" for labels in found]


@pytest.mark.parametrize("name", NAMES)
def test_reviews_are_distinct_balanced_and_reproducible(name: str) -> None:
    rows = reviews(name, 0, 3000)
    assert len({row.text for row in rows}) == 3000
    assert Counter(row.label for row in rows) == {"negative": 1500, "positive": 1500}
    assert reviews(name, 5, 50) == reviews(name, 5, 50) != reviews(name, 6, 50)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_label_follows_from_statements_of_one_set_only(name: str, held_out: bool) -> None:
    rows = reviews(name, 1, 500, held_out=held_out)
    assert implied_labels(rows, name, held_out=held_out) == [row.label for row in rows]
    assert set(implied_labels(rows, name, held_out=not held_out)) == {"?"}


@pytest.mark.parametrize("name", NAMES)
def test_memorised_words_do_not_predict_the_held_out_reviews(name: str) -> None:
    learn, same, other = (
        reviews(name, 2, 200),
        reviews(name, 3, 400),
        reviews(name, 2, 400, held_out=True),
    )
    count = CountVectorizer(token_pattern=r"\w+").fit([row.text for row in learn])

    def figures(rows: list[LabelledText]) -> tuple[object, list[str]]:
        return count.transform([row.text for row in rows]), [row.label for row in rows]

    model = LogisticRegression(max_iter=1000).fit(*figures(learn))
    assert model.score(*figures(same)) > 0.85
    assert model.score(*figures(other)) < 0.7


def test_flipped_reviews_have_the_same_texts_and_opposite_labels() -> None:
    rows = reviews("hospital", 0, 20)
    assert [row.text for row in flipped(rows)] == [row.text for row in rows]
    assert all(a.label != b.label for a, b in zip(rows, flipped(rows), strict=True))
