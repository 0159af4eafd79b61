"""What a model said, for a terminal and for a program. Pure.

A model's words are its users': whatever a terminal would obey is taken out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.protocol.fields import one_line
from common.protocol.versions import CurrentModel

if TYPE_CHECKING:
    from worker.incremental.serving.predictor import Prediction

SHOWN = 5  # classes in one line


@dataclass(frozen=True)
class Answers:
    """What there is to one text.

    Attributes:
        asked: The text.
        model: Which was asked.
        mine: By the client's model.
        other: Its second answer, which was drawn; None where none was asked for.
        common: By the newest global version; None where it was not asked.
    """

    asked: str
    model: CurrentModel
    mine: Prediction
    other: Prediction | None = None
    common: Prediction | None = None

    @property
    def second(self) -> Prediction | None:
        """The other answer, if it is another one."""
        return self.other if self.other and self.other.text != self.mine.text else None


def blocks(said: Answers) -> list[str]:
    """For a terminal: the answer, or several with their titles."""
    mine, second, common = said.mine, said.second, said.common
    own = [_block(mine)] if second is None else [f"1: {_block(mine)}", f"2: {_block(second)}"]
    if common is None:
        return own
    learned = "what was learned here" if mine.local else "nothing learned here"
    title = f"mine (version {mine.version} and {learned})"
    return [f"{title}: {own[0]}", *own[1:], f"global (version {common.version}): {_block(common)}"]


def line(said: Answers) -> str:
    """For a pipe: one line, with tabs between several answers."""
    return "\t".join(" ".join(block.split()) for block in blocks(said))


def fields(said: Answers, client: str) -> dict[str, Any]:
    """For a program."""
    found = {
        "client": client,
        "run": said.model.run,
        "version": said.mine.version,
        "local": said.mine.local,
        "input": said.asked,
        **_fields(said.mine),
    }
    if said.other is not None:
        found["other"] = said.other.text
    if said.common is not None:
        found["global"] = {"version": said.common.version, **_fields(said.common)}
    return found


def clean(text: str) -> str:
    """Text of several lines, without what a terminal would obey."""
    return "\n".join(one_line(line) for line in text.splitlines())


def numbered(labels: Sequence[str]) -> str:
    """Classes with the numbers that name them, too."""
    return ", ".join(f"{i} {one_line(label)}" for i, label in enumerate(labels, 1))


def chosen(word: str, labels: Sequence[str]) -> str | None:
    """The class that a word names: by its name, else by its name in other letters, or its number.

    None where it names none, or not one alone.
    """
    word = word.strip()
    if word in labels:
        return word
    alike = [label for label in labels if label.casefold() == word.casefold()]
    if len(alike) == 1:
        return alike[0]
    if word.isascii() and word.isdigit() and 1 <= int(word) <= len(labels):
        return labels[int(word) - 1]
    return None


def _block(reply: Prediction) -> str:
    if not reply.probabilities:
        return clean(reply.text) or "(an empty answer)"
    (label, first), *others = reply.probabilities.items()
    shown = [f"{one_line(name)} {value:.0%}" for name, value in others[: SHOWN - 1]]
    if len(others) >= SHOWN:
        shown.append(f"{len(others) - SHOWN + 1} more")
    return f"{one_line(label)} {first:.0%}" + (f" ({', '.join(shown)})" if shown else "")


def _fields(reply: Prediction) -> dict[str, Any]:
    if not reply.probabilities:
        return {"answer": reply.text}
    rounded = {name: round(value, 6) for name, value in reply.probabilities.items()}
    return {"label": reply.text, "probabilities": rounded}
