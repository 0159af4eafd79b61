"""Choice and mix of the texts that an offline base model reads.

English from this machine, the project's own prose, and the prompt template. Paragraphs of the
machine are chosen by how plain they are, where there are more than the model reads; variety serves
a small model better than choice does. Some texts are put into the prompt template as simple tasks,
so that the model knows the template's words; none of them is a task that a federation trains or is
judged on.

In the data path: `learning.offline.corpus` and `learning.synthetic.instructions` → here →
`learning.offline.causal_pretraining` and `learning.offline.encoder_pretraining`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from learning.offline.cleaning import plainness, sentences
from learning.offline.corpus import Passage
from learning.offline.primer import read_primer
from learning.offline.world import make_world_texts
from learning.prompts.alpaca import format_prompt
from learning.synthetic.instructions import make_prose

_ABOUT = (
    "Describe {}.",
    "Explain what {} means.",
    "What is {}?",
    "Tell me about {}.",
    "Write a short text about {}.",
    "How does {} work?",
)
_CONTINUE = ("Continue the following text.", "Complete the paragraph.", "Write what comes next.")
_FIRST = ("Summarize the following text.", "Give the main point of the text.")


@dataclass(frozen=True)
class CorpusSizes:
    """Number of texts of each source.

    The order and values of the fields are part of the key under which models are cached.
    """

    passages: int = 30_000  # of this machine, the plainest first
    prose: int = 300  # paragraphs of the project's synthetic prose
    world: int = 1500  # short texts of the lexicon's facts
    primer: int = 4  # repetitions of the reader of general English
    # Share of texts that get the prompt template, whose fixed words cost tokens and teach little.
    tasks: float = 0.05


def _merit(passage: Passage) -> float:
    """Return the rank of a passage: plain words first, longer paragraphs before stray sentences."""
    return plainness(passage.text) + 0.15 * min(1.0, len(passage.text) / 200)


def plainest(passages: Sequence[Passage], n: int) -> list[Passage]:
    """Return the `n` passages that read most as English; ties keep their order."""
    return sorted((p for p in passages if len(p.text) >= 60), key=_merit, reverse=True)[:n]


def _subject(name: str) -> str:
    return name.strip("_").replace("_", " ").lower() or "this"


def _as_task(subject: str, text: str, rng: Random) -> str:
    first, *rest = sentences(text)
    kind = rng.randrange(4)
    if kind == 0 and rest:
        return format_prompt(rng.choice(_CONTINUE), first) + " ".join(rest)
    if kind == 1 and rest:
        return format_prompt(rng.choice(_FIRST), text) + first
    return format_prompt(rng.choice(_ABOUT).format(subject), "") + text


def training_texts(passages: Sequence[Passage], sizes: CorpusSizes, seed: int) -> list[str]:
    """Return the texts to learn from, shuffled; the caller ends each with the end-of-text token."""
    rng = Random(seed)
    pairs = [(_subject(p.subject), p.text) for p in plainest(passages, sizes.passages)]
    pairs += [("the people", text) for text in make_prose(seed, sizes.prose)]
    pairs += make_world_texts(seed, sizes.world) + read_primer() * sizes.primer
    rng.shuffle(pairs)
    return [_as_task(*pair, rng) if rng.random() < sizes.tasks else pair[1] for pair in pairs]
