"""Answers of a model to one text, formatted for terminals and programs. Pure.

A model's words come from its users, so control characters are removed before a terminal sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.protocol.versions import CurrentModel
from common.text import one_line

if TYPE_CHECKING:
    from worker.incremental.serving.predictor import Prediction

MAX_CLASSES = 5  # in one line


@dataclass(frozen=True)
class Answers:
    """Answers to one text."""

    text: str
    model: CurrentModel
    client: Prediction  # of the client's model
    other: Prediction | None = None  # a second, sampled one of the client's model
    common: Prediction | None = None  # of the newest global version

    @property
    def second(self) -> Prediction | None:
        """The second answer if it differs from the first."""
        return self.other if self.other and self.other.text != self.client.text else None


def blocks(answers: Answers) -> list[str]:
    """Return the answer for a terminal, or several answers with titles."""
    client, second, common = answers.client, answers.second, answers.common
    own = [_block(client)] if second is None else [f"1: {_block(client)}", f"2: {_block(second)}"]
    if common is None:
        return own
    learned = "what was learned here" if client.local else "nothing learned here"
    title = f"mine (version {client.version} and {learned})"
    return [f"{title}: {own[0]}", *own[1:], f"global (version {common.version}): {_block(common)}"]


def line(answers: Answers) -> str:
    """Return one line for a pipe, with tabs between several answers."""
    return "\t".join(" ".join(block.split()) for block in blocks(answers))


def fields(answers: Answers, client: str) -> dict[str, Any]:
    values = {
        "client": client,
        "run": answers.model.run,
        "version": answers.client.version,
        "local": answers.client.local,
        "input": answers.text,
        **_fields(answers.client),
    }
    if answers.other is not None:
        values["other"] = answers.other.text
    if answers.common is not None:
        values["global"] = {"version": answers.common.version, **_fields(answers.common)}
    return values


def clean(text: str) -> str:
    """Return text of several lines without control characters."""
    return "\n".join(one_line(line) for line in text.splitlines())


def numbered(labels: Sequence[str]) -> str:
    """Return the classes with the numbers by which they can be chosen."""
    return ", ".join(f"{i} {one_line(label)}" for i, label in enumerate(labels, 1))


def choose_label(word: str, labels: Sequence[str]) -> str | None:
    """Return the class that a word names, by name or number; None if there is not exactly one.

    A name in the same case comes first.
    """
    word = word.strip()
    if word in labels:
        return word
    matches = [label for label in labels if label.casefold() == word.casefold()]
    if len(matches) == 1:
        return matches[0]
    if word.isascii() and word.isdigit() and 1 <= int(word) <= len(labels):
        return labels[int(word) - 1]
    return None


def _block(prediction: Prediction) -> str:
    if not prediction.probabilities:
        return clean(prediction.text) or "(an empty answer)"
    (label, first), *others = prediction.probabilities.items()
    rest = [f"{one_line(name)} {value:.0%}" for name, value in others[: MAX_CLASSES - 1]]
    if len(others) >= MAX_CLASSES:
        rest.append(f"{len(others) - MAX_CLASSES + 1} more")
    return f"{one_line(label)} {first:.0%}" + (f" ({', '.join(rest)})" if rest else "")


def _fields(prediction: Prediction) -> dict[str, Any]:
    if not prediction.probabilities:
        return {"answer": prediction.text}
    rounded = {name: round(value, 6) for name, value in prediction.probabilities.items()}
    return {"label": prediction.text, "probabilities": rounded}
