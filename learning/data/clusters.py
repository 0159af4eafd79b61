"""Topics for data that has none: clusters of instructions by their words.

A federation's clients differ in what they ask, so a realistic partition needs topics. TF-IDF and
k-means find crude ones in a second or two, from a fixed seed: the same rows, the same topics.

In the data path: called by `learning.data.partition`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

MAX_TOPICS = 10
_ROWS_PER_TOPIC = 20  # fewer rows get fewer topics
_WORD = r"(?u)\b[^\W\d]\w+\b"  # two letters or more; no numbers
_NAMED_BY = 3  # words in a topic's name


def cluster_topics(texts: Sequence[str], seed: int) -> list[str]:
    """Return a topic for each text, named by the words that weigh most in it.

    Texts without words in common form one topic. Instructions should come without their template,
    which all share.
    """
    # Here, because it takes a second and most data has topics of its own.
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    count = max(1, min(MAX_TOPICS, len(texts) // _ROWS_PER_TOPIC))
    try:
        vectorizer = TfidfVectorizer(
            stop_words="english",
            token_pattern=_WORD,
            sublinear_tf=True,
            max_features=4096,
            min_df=2,
        )
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # no word is left, e.g. in a script without spaces
        return ["all"] * len(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct texts than clusters
        model = KMeans(count, n_init=3, random_state=seed).fit(matrix)
    words = vectorizer.get_feature_names_out()
    top = np.argsort(-model.cluster_centers_, axis=1, kind="stable")[:, :_NAMED_BY]
    names = [f"{i}: {' '.join(words[row])}" for i, row in enumerate(top)]
    return [names[i] for i in model.labels_]
