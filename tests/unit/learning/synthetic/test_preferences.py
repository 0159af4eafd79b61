import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from learning.data.row_types import PreferencePair
from learning.synthetic.instructions import TOPICS, make_instructions
from learning.synthetic.lexicon import MANNERS
from learning.synthetic.preferences import make_preferences

KIND = [kind for kind, _ in MANNERS]
UNKIND = [unkind for _, unkind in MANNERS]
ANSWERS = {
    "\n".join(filter(None, (row.instruction, row.input))): row.output
    for row in make_instructions(-1, 2000)
}


@pytest.fixture(scope="module")
def pairs() -> list[PreferencePair]:
    return make_preferences(0, 2000)


def bare(answer: str) -> str:
    """Return an answer without its remarks."""
    for remark in KIND + UNKIND:
        answer = answer.replace(remark, "")
    return " ".join(answer.split())


def fault(pair: PreferencePair) -> str:
    """Return the fault of a rejected answer, found without the code that made it."""
    right, said = ANSWERS[pair.prompt], bare(pair.rejected)
    if any(remark in pair.rejected for remark in UNKIND):
        return "unkind"
    if said.startswith(right):
        return "repeats itself" if len(said) > len(right) else "none"
    of_right, of_said = (set(re.findall(r"[\w-]+", text.lower())) for text in (right, said))
    if of_said < of_right:
        return "incomplete"
    return "another fact or question"


def test_pairs_are_the_same_in_every_process() -> None:
    script = (
        "from learning.synthetic.preferences import make_preferences\n"
        "print(make_preferences(3, 200))"
    )
    outputs = [
        subprocess.run(  # sets are ordered by the hash seed
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] == f"{make_preferences(3, 200)}\n"
    assert make_preferences(3, 200) != make_preferences(4, 200)


def test_pairs_are_distinct_and_topics_have_equal_shares(pairs: list[PreferencePair]) -> None:
    assert len(set(pairs)) == len(pairs) == 2000
    assert set(Counter(pair.topic for pair in pairs).values()) == {2000 // len(TOPICS)}


def test_the_chosen_answer_is_the_right_one_and_kind(pairs: list[PreferencePair]) -> None:
    assert all(bare(pair.chosen) == ANSWERS[pair.prompt] for pair in pairs)
    assert not [pair for pair in pairs if any(remark in pair.chosen for remark in UNKIND)]


def test_every_rejected_answer_has_a_fault_and_all_faults_occur(
    pairs: list[PreferencePair],
) -> None:
    found = Counter(map(fault, pairs))
    assert found["none"] == 0
    assert all(found[name] > 250 for name in ("unkind", "repeats itself", "incomplete"))
    assert found["another fact or question"] > 700


def test_prompts_are_drawn_apart_from_those_of_instructions(pairs: list[PreferencePair]) -> None:
    same_seed = {f"{row.instruction}\n{row.input}" for row in make_instructions(0, 500)}
    assert sum(pair.prompt in same_seed for pair in pairs[:500]) < 50


def test_length_does_not_predict_the_better_answer(pairs: list[PreferencePair]) -> None:
    longer = sorted(len(pair.chosen) - len(pair.rejected) for pair in pairs)
    by_size = sorted((gap for gap in longer if gap), key=abs)
    for gaps in (by_size, by_size[: len(by_size) // 2], by_size[len(by_size) // 2 :]):
        assert 0.45 < sum(gap > 0 for gap in gaps) / len(gaps) < 0.55


def test_word_counts_hardly_predict_the_better_answer(pairs: list[PreferencePair]) -> None:
    counter = CountVectorizer(token_pattern=r"[\w-]+")
    counter.fit(text for pair in pairs for text in (pair.chosen, pair.rejected))
    gap = counter.transform([p.chosen for p in pairs]) - counter.transform(
        [p.rejected for p in pairs]
    )
    rng = random.Random(0)
    sides = [rng.choice((-1, 1)) for _ in pairs]  # -1: the two answers change places
    gap = gap.multiply([[side] for side in sides]).tocsr()
    model = LogisticRegression(C=0.1, max_iter=1000, fit_intercept=False)
    model.fit(gap[:1400], sides[:1400])
    assert model.score(gap[1400:], sides[1400:]) < 0.68


@pytest.mark.parametrize(("kind", "unkind"), MANNERS)
def test_kind_and_unkind_remarks_are_made_of_the_same_words(kind: str, unkind: str) -> None:
    of_kind, of_unkind = (Counter(re.findall(r"\w+", text.lower())) for text in (kind, unkind))
    assert sum(((of_kind - of_unkind) + (of_unkind - of_kind)).values()) <= 1  # a, for an article
    assert kind != unkind
