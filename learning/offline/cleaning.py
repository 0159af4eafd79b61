"""Extraction of plain English from docstrings, manuals and read-me files.

Documentation is prose mixed with code, tables, parameter lists and markup. A base model that is to
be fine-tuned on sentences should learn from sentences, so each text is cut into paragraphs, its
markup is removed, and only paragraphs that read as English remain.

In the data path: `learning.offline.corpus` cleans the texts that it finds with `paragraphs`. Next:
`learning.offline.training_texts`.
"""

from __future__ import annotations

import re

_ROLE = re.compile(r":[a-zA-Z:]+:`~?\.?([^`<]+)(?:<[^`>]*>)?`")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_RST_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_*")
_URL = re.compile(r"https?://\S+")
_HTML = re.compile(r"</?[a-zA-Z][^>]*>")
_CITATION = re.compile(r"\s*\[[\w.#*-]{1,12}\]_")
_MARKS = re.compile(r"[`*]+|\|(?=\w)|(?<=\w)\|")
_CODE = re.compile(r"[_\\{}<>=|~^@#$%]|\w\(|\)\.|\w\.\w{3,}|[a-z][A-Z]|->|--|\d{5}")
_LIST = re.compile(r"^(?:[-*+•]|\d+[.)])\s+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])")
_OTHER = re.compile(r"[^A-Za-z ]")
_WORD = re.compile(r"[A-Za-z']+")
_COMMON_WORDS = """
    the a an of to and in is that it for as with on be are this by or from if not can which you
    at will has have was its when but all any one may used should each they than other there
    these their also more into some such only no then does do so must been your we i he she
    where how what same two first them would most between after before because while
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_REPLACED = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-"})


def _without_markup(paragraph: str) -> str:
    """Return a paragraph on one line, without reStructuredText, Markdown or HTML markup."""
    text = paragraph.translate(_REPLACED)
    for pattern in (_ROLE, _RST_LINK, _LINK):
        text = pattern.sub(r"\1", text)
    for pattern in (_URL, _HTML, _CITATION, _MARKS):
        text = pattern.sub("", text)
    return re.sub(r"\s+([.,;:)])", r"\1", re.sub(r"\s+", " ", text)).strip()


def plainness(sentence: str) -> float:
    """Return how much a sentence reads as English: its share of very common words, 0 to 1."""
    words = _WORD.findall(sentence.lower())
    return sum(word in _COMMON for word in words) / len(words) if words else 0.0


def _readable(sentence: str) -> bool:
    """Return whether a sentence is whole, free of code, and made of words."""
    words = sentence.split()
    return (
        4 <= len(words) <= 60
        and sentence[0].isupper()
        and sentence[-1] in ".!?"
        and sentence.isascii()
        and not _CODE.search(sentence)
        and len(_OTHER.findall(sentence)) <= 0.07 * len(sentence)
        and plainness(sentence) >= 0.25
    )


def sentences(text: str) -> list[str]:
    """Split one paragraph into sentences, at full stops that a capital follows."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def paragraphs(text: str) -> list[str]:
    """Return the English paragraphs of a documentation text.

    Code blocks, doctests, tables, headings and parameter lists are dropped. Of the rest, each run
    of consecutive sentences without code becomes a paragraph.
    """
    kept: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        if len(block) < 20 or ">>>" in block or block.startswith(("    ", "\t")):
            continue
        run: list[str] = []
        for sentence in sentences(_without_markup(_LIST.sub("", block.strip()))):
            if _readable(sentence):
                run.append(sentence)
            elif run:
                kept.append(" ".join(run))
                run = []
        if run:
            kept.append(" ".join(run))
    return kept
