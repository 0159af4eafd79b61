"""Topics for rows that have none: clusters of instructions by their words.

A realistic partition needs topics, because the clients of a federation differ in what they ask.
TF-IDF and k-means find crude ones in a second or two, the same ones for the same seed.

In the data path: called by `learning.data.partition`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

MAX_TOPICS = 10
_ROWS_PER_TOPIC = 20  # fewer rows get fewer topics
_WORD = r"(?u)\b[^\W\d]\w+\b"  # two letters or more; no numbers
_NAME_WORDS = 3  # words in a topic's name


def cluster_topics(texts: Sequence[str], seed: int) -> list[str]:
    """Return a topic for each text, named by the words that weigh most in it.

    Texts without words in common form one topic. Pass instructions without their template, which is
    the same in all.
    """
    # Imported here: it takes a second, and most data has topics of its own.
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
    top = np.argsort(-model.cluster_centers_, axis=1, kind="stable")[:, :_NAME_WORDS]
    names = [f"{i}: {' '.join(words[row])}" for i, row in enumerate(top)]
    return [names[i] for i in model.labels_]
