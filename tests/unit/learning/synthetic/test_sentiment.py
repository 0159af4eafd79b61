import re
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from learning.data.row_types import LabelledText
from learning.synthetic.lexicon import OUTCOMES, REVIEWED, VERDICTS
from learning.synthetic.sentiment import LABELS, make_reviews

PAIRS = [*VERDICTS, *OUTCOMES, *(pair for _, _, said in REVIEWED for pair in said)]
SIGN = {word: sign for pair in PAIRS for word, sign in zip(pair, (1, -1), strict=True)}
TURNED = r"not|never|hardly|by no means|anything but|far from|nowhere near"
MAIN = (  # what follows, or stands between, is what counts; the first that matches
    r"above all (?P<main>\w+)",
    r"mostly (?P<main>\w+)",
    r" but (?P<main>[^,]*)$",
    r" ended (?P<main>.*)$",
    r"^although [^,]*, (?P<main>.*)$",
    r"on the whole (?P<main>[^,]*)",
    r"I found (?P<main>[^,]*)",
    r"to me (?P<main>[^,]*)",
    r"^(?P<main>.*), although",
    r"^(?P<main>.*)$",
)


@pytest.fixture(scope="module")
def rows() -> list[LabelledText]:
    return make_reviews(0, 3000)


def read(text: str) -> str:
    """Return the label by rules: about the thing, main clause, negation, comparison."""
    said = [s for s in re.split(r"\. |\.$", text) if s and "told me" not in s]
    aside = ("The weather", "The bus", "The week", "A letter")
    (verdict,) = [s for s in said if not s.startswith(aside)]
    verdict = re.sub("^Although", "although", verdict)
    verdict = verdict.replace("anything but", "not").replace("On the", "on the")
    verdict = verdict.replace("To me", "to me")
    match = next(filter(None, (re.search(rule, verdict) for rule in MAIN)))
    main = match["main"]
    (word,) = [word for word in SIGN if re.search(rf"\b{word}\b", main)]
    turned = bool(re.search(rf"\b({TURNED})\b", main)) != verdict.startswith("Next to")
    return LABELS[(SIGN[word] > 0) != turned]


def test_reviews_are_distinct_and_half_of_each_label_and_the_same_by_seed(
    rows: list[LabelledText],
) -> None:
    assert len({row.text for row in rows}) == 3000
    assert Counter(row.label for row in rows) == {"negative": 1500, "positive": 1500}
    assert make_reviews(5, 50) == make_reviews(5, 50) != make_reviews(6, 50)


def test_the_structure_of_a_review_determines_its_label(rows: list[LabelledText]) -> None:
    assert [row for row in rows if read(row.text) != row.label] == []


def test_a_bag_of_words_hardly_predicts_the_label(rows: list[LabelledText]) -> None:
    counts = CountVectorizer(token_pattern=r"\w+").fit_transform([row.text for row in rows])
    labels = [row.label for row in rows]
    model = LogisticRegression(max_iter=1000).fit(counts[:2000], labels[:2000])
    assert model.score(counts[2000:], labels[2000:]) < 0.65


def test_opinions_are_negated_and_contrasted_and_compared(rows: list[LabelledText]) -> None:
    texts = [row.text.lower() for row in rows]
    for mark in ("not at all", "although", "but", "next to", "as the last one", "friends called"):
        assert sum(mark in text for text in texts) > 50
