"""Prompt form of a run: converts rows into token ids, and says which of them are learned.

Training, evaluation, sample answers and `fccl try` use the same form, so that a model is prompted
as it was trained.

Data path: `learning.data.row_types` (rows) → here → `learning.objectives.tokens` and
`learning.objectives.dpo` (examples), `learning.evaluation.generation` (prompts).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from operator import itemgetter

from transformers import PreTrainedTokenizerBase

from common.errors import ModelError
from common.protocol.tasks import PromptSpec
from learning.data.row_types import Conversation, Instruction, PreferencePair, RatedAnswer
from learning.prompts import alpaca
from learning.prompts.control_text import ControlText, MarkedText, Spans
from learning.prompts.messages import (
    Chat,
    PromptRow,
    TemplateError,
    chat_of,
    chat_of_rated,
    chats_of_pair,
    prompt_of,
)
from learning.prompts.rendering import Renderer, make_renderer
from learning.prompts.spans import RenderedChat, render_answers, render_pair_answer
from learning.prompts.structure import Fit, Structure, fit_structure, structure_of
from learning.prompts.tokenisation import TextTokens, tokenise

_REFUSED = "the chat template cannot render these turns"
REMEDY = 'set model.prompt to "alpaca", or to a Jinja file'
_PROBE = "word"


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a row's text, and which of them are learned."""

    text: str
    tokens: TextTokens
    spans: Spans  # of the answers, with the end of their turns
    answers: Spans  # of the answers, without the end of their turns and outer white space
    is_pair: bool = False  # of a preference pair: everything after the prompt is the answer

    @property
    def ids(self) -> Sequence[int]:
        return self.tokens.ids

    def learned(self) -> list[bool]:
        """Return for each token whether it is learned: whether it overlaps an answer.

        If several tokens stand for the last character of an answer (such as a line break before
        which the tokenizer puts a space), only the first is learned, as in transformers' masks.
        """
        offsets = self.tokens.offsets
        flags = [False] * len(offsets)
        for begin, end in self.spans:
            start = bisect_right(offsets, begin, key=itemgetter(1))
            stop = bisect_left(offsets, end, key=itemgetter(0))
            while not self.is_pair and stop - 2 >= start and offsets[stop - 2] == (end - 1, end):
                stop -= 1
            flags[start:stop] = [True] * max(0, stop - start)
        return flags

    def answers_after(self, length: int) -> int:
        """Return the number of answers that begin after the first `length` tokens."""
        stop = self._end(length)
        return sum(begin >= stop for begin, _ in self.answers)

    def answer_bytes(self, length: int) -> int:
        """Return the number of UTF-8 bytes of the answers in the first `length` tokens."""
        stop = self._end(length)
        words = (self.text[begin : min(end, stop)] for begin, end in self.answers)
        return sum(len(each.encode()) for each in words)

    def _end(self, length: int) -> int:
        """Return the number of characters in the first `length` tokens."""
        return self.tokens.offsets[length - 1][1] if length else 0


def alpaca_spec(tokenizer: PreTrainedTokenizerBase) -> PromptSpec:
    """Return the Alpaca form for a tokenizer.

    Raises:
        ModelError: The tokenizer has no end-of-sequence token to end an answer.
    """
    if tokenizer.eos_token is None:
        raise ModelError(
            "the tokenizer has no end-of-sequence token", "use a model made for text generation"
        )
    begin = tokenizer.bos_token_id
    begins = begin is not None and begin in tokenizer("").input_ids
    return PromptSpec(template=alpaca.chat_template(begins))


class PromptForm:
    """A chat template with a tokenizer.

    Args:
        spec: The run's form; None is the Alpaca form.

    Raises:
        ModelError: The tokenizer is not one of the `tokenizers` library, which gives offsets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: PromptSpec | None) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} does not give the offsets of its tokens",
                "use a model whose tokenizer has a tokenizer.json",
            )
        self.tokenizer = tokenizer
        self.spec = spec or alpaca_spec(tokenizer)
        self._all = make_renderer(tokenizer, self.spec)
        # Only the last turn of a preference pair is learned, whatever the run's form says.
        self._last = make_renderer(tokenizer, self.spec.model_copy(update={"turns": "last"}))
        self._control = ControlText(self._all.control)
        self._fits: dict[tuple[Structure, bool], Fit] = {}

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: the end-of-turn token, and the tokenizer's own if it differs.

        Raises:
            ModelError: No control token ends an answer, so that a model would never learn to stop.
        """
        [found] = self.encode([Instruction(_PROBE, "", _PROBE)])
        if isinstance(found, str):
            raise ModelError(f"a question and its answer cannot be rendered: {found}", REMEDY)
        control, (_, stop), (_, end) = self._all.control, found.answers[-1], found.spans[-1]
        last = control.search(found.text, stop, end) if control else None
        ends = [
            each
            for each, (first, _) in zip(found.ids, found.tokens.offsets, strict=True)
            if last is not None and first == last.start()
        ]
        if not ends and self._all.marks_answers:
            raise ModelError(
                "the chat template marks answers without a token that ends them, so that a model"
                " would not learn to stop",
                "set model.prompt to a Jinja file with endgeneration after the end of the turn",
            )
        if not ends:
            raise ModelError(
                "the chat template does not end an answer with a special token, so that a model"
                " would not learn to stop",
                "set model.prompt to a Jinja file that puts eos_token after the assistant's turn",
            )
        own = self.tokenizer.eos_token_id
        return (ends[0], own) if isinstance(own, int) and own != ends[0] else (ends[0],)

    def encode(self, rows: Sequence[Instruction | Conversation]) -> list[EncodedText | str]:
        """Return the tokens of each row, or the reason (a text) why the template refuses it."""
        only_last = self.spec.turns == "last"
        chats = [chat_of(row).up_to_last_answer() for row in rows]
        return self._tokenised([self._rendered(self._all, chat, only_last) for chat in chats])

    def encode_pairs(
        self, pairs: Sequence[PreferencePair]
    ) -> list[tuple[EncodedText | str, EncodedText | str]]:
        """Return the tokens of both chats of each pair, chosen and rejected, as `encode` does."""
        found = self._answered([chat for pair in pairs for chat in chats_of_pair(pair)])
        return list(zip(found[::2], found[1::2], strict=True))

    def encode_rated(self, rows: Sequence[RatedAnswer]) -> list[EncodedText | str]:
        """Return the tokens of each rated answer with its prompt, as `encode` does."""
        return self._answered([chat_of_rated(row) for row in rows])

    def _answered(self, chats: Sequence[Chat]) -> list[EncodedText | str]:
        """Return the tokens of chats of which the last answer is judged as a whole."""
        texts = self._tokenised([self._rendered(self._last, chat, None) for chat in chats])
        return [each if isinstance(each, str) else replace(each, is_pair=True) for each in texts]

    def prompt_ids(self, row: PromptRow) -> list[int]:
        """Return the ids of a row up to the beginning of its last answer.

        Raises:
            ModelError: The template refuses the row's turns.
        """
        renderer = self._last if isinstance(row, PreferencePair | RatedAnswer) else self._all
        before = prompt_of(row)
        chat = Chat((*before.turns, {"role": "assistant", "content": _PROBE}), before.tools)
        fit = self._fit(renderer, chat)
        if fit.adaptation is None:
            raise ModelError(f"{_REFUSED}: {fit.problem}", REMEDY)
        try:
            marked, mark = self._control.mark(fit.adaptation(chat).before(-1))
            rendered = renderer.render(marked, generation_prompt=True)
        except TemplateError as error:
            raise ModelError(f"{_REFUSED}: {error}", REMEDY) from None
        [tokens] = tokenise(self.tokenizer, [self._control.unmark(rendered, mark, [])])
        return list(tokens.ids)

    def _fit(self, renderer: Renderer, chat: Chat) -> Fit:
        only_last = renderer is self._last or self.spec.turns == "last"
        key = (structure_of(chat), only_last)
        if key not in self._fits:
            self._fits[key] = fit_structure(renderer, key[0], only_last=only_last)
        return self._fits[key]

    def _rendered(self, renderer: Renderer, chat: Chat, only_last: bool | None) -> MarkedText | str:
        """Render the turns of a row; for a preference pair `only_last` is None."""
        fit = self._fit(renderer, chat)
        if fit.adaptation is None:
            return f"{_REFUSED}: {fit.problem}"
        try:
            marked, mark = self._control.mark(fit.adaptation(chat))
            if only_last is None:
                found = render_pair_answer(renderer, marked)
            else:
                found = render_answers(renderer, marked, only_last=only_last)
        except TemplateError as error:
            return f"{_REFUSED}: {error}"
        if _lacks_words(found, marked, only_last=only_last is not False):
            return f"{_REFUSED}: it leaves out words of an answer"
        return self._control.unmark(found.text, mark, found.spans)

    def _tokenised(self, texts: Sequence[MarkedText | str]) -> list[EncodedText | str]:
        usable = [text for text in texts if isinstance(text, MarkedText)]
        tokens = iter(tokenise(self.tokenizer, usable))
        return [
            text
            if isinstance(text, str)
            else EncodedText(text.text, next(tokens), text.spans, self._control.words(text))
            for text in texts
        ]


def _lacks_words(rendered: RenderedChat, chat: Chat, *, only_last: bool) -> bool:
    """Return whether what is learned lacks words of an answer, as of thoughts that are cut off."""
    learned = "".join("".join(rendered.text[begin:end].split()) for begin, end in rendered.spans)
    answers = chat.answers()[-1:] if only_last else chat.answers()
    return any("".join(str(chat.turns[i]["content"]).split()) not in learned for i in answers)


@lru_cache(maxsize=8)
def prompt_form(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec | None) -> PromptForm:
    """Return the prompt form of a tokenizer, cached with what it has learned about the template."""
    return PromptForm(tokenizer, spec)
