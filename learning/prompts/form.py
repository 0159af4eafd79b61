"""The prompt form of a run: turns rows into token ids, of which the answers are learned.

One form serves training, evaluation, sample answers and `fccl try`, so that a model is asked in
the words with which it was trained.

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
from learning.data.row_types import Conversation, Instruction, PreferencePair
from learning.prompts import alpaca
from learning.prompts.control_text import ControlText, MarkedText, Spans
from learning.prompts.messages import Chat, PromptRow, chat_of, chats_of_pair, prompt_of
from learning.prompts.rendering import Renderer, TemplateError, make_renderer
from learning.prompts.spans import RenderedChat, render_answers, render_pair_answer
from learning.prompts.structure import Fit, Structure, fit_structure, structure_of
from learning.prompts.tokenisation import TokenisedText, tokenise

REFUSED = "the chat template cannot take these turns"
REMEDY = 'set model.prompt to "alpaca", or to a Jinja file'
_PROBE = "word"


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a row's text, and which of them are learned."""

    text: str
    tokens: TokenisedText
    spans: Spans  # places of the answers in the text, with the tokens that end them
    answers: Spans  # places of the answers' words
    is_pair: bool = False  # whether the answer is all that follows the prompt, as trl has it

    @property
    def ids(self) -> Sequence[int]:
        return self.tokens.ids

    def learned(self) -> list[bool]:
        """Return which tokens are learned: those that have a character of an answer.

        Of several tokens for the last character of an answer only the first counts, as in
        transformers' masks: a line break that a tokenizer puts a space before, for example.
        """
        places = self.tokens.places
        flags = [False] * len(places)
        for begin, end in self.spans:
            start = bisect_right(places, begin, key=itemgetter(1))
            stop = bisect_left(places, end, key=itemgetter(0))
            while not self.is_pair and stop - 2 >= start and places[stop - 2] == (end - 1, end):
                stop -= 1
            flags[start:stop] = [True] * max(0, stop - start)
        return flags

    def answers_after(self, length: int) -> int:
        """Return the number of answers that begin after the first `length` tokens."""
        stop = self.tokens.places[length - 1][1] if length else 0
        return sum(begin >= stop for begin, _ in self.answers)

    def answer_bytes(self, length: int) -> int:
        """Return the UTF-8 bytes of the answers' words in the first `length` tokens."""
        stop = self.tokens.places[length - 1][1] if length else 0
        words = (self.text[begin : min(end, stop)] for begin, end in self.answers)
        return sum(len(each.encode()) for each in words)


def alpaca_spec(tokenizer: PreTrainedTokenizerBase) -> PromptSpec:
    """Return the Alpaca form for a tokenizer.

    Raises:
        ModelError: The tokenizer has no end-of-sequence token, with which an answer ends.
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
        tokenizer: Tokenizer of the base model, of the `tokenizers` library.
        spec: The run's form; None is the Alpaca form.

    Raises:
        ModelError: The tokenizer cannot say which characters a token stands for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, spec: PromptSpec | None) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer {type(tokenizer).__name__} does not give the places of its tokens",
                "use a model whose tokenizer has a tokenizer.json",
            )
        self.tokenizer = tokenizer
        self.spec = spec or alpaca_spec(tokenizer)
        self._all = make_renderer(tokenizer, self.spec)
        # A preference is about the last turn; the others are as they are where nothing is learned.
        self._last = make_renderer(tokenizer, self.spec.model_copy(update={"turns": "last"}))
        self._control = ControlText(self._all.control)
        self._fits: dict[tuple[Structure, bool], Fit] = {}

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end an answer: of the end of a turn, and the tokenizer's own if it is another.

        Raises:
            ModelError: An answer does not end with a control token, so that a model would never
                learn to stop.
        """
        [found] = self.encode([Instruction(_PROBE, "", _PROBE)])
        if isinstance(found, str):
            raise ModelError(f"the chat template refuses one question and answer: {found}", REMEDY)
        control, (_, stop), (_, end) = self._all.control, found.answers[-1], found.spans[-1]
        last = control.search(found.text, stop, end) if control else None
        ends = [
            each
            for each, (first, _) in zip(found.ids, found.tokens.places, strict=True)
            if last is not None and first == last.start()
        ]
        if not ends and self._all.marks_answers:
            raise ModelError(
                "the chat template marks answers without a token that ends them, so that a model"
                " would not learn to stop",
                "put endgeneration behind the end of the turn in a Jinja file, and name it in"
                " model.prompt",
            )
        if not ends:
            raise ModelError(
                "the chat template does not end an answer with a token of its own, so that a model"
                " would not learn to stop",
                "put eos_token after the assistant's turn in a Jinja file, and name it in"
                " model.prompt",
            )
        own = self.tokenizer.eos_token_id
        return (ends[0], own) if isinstance(own, int) and own != ends[0] else (ends[0],)

    def encode(self, rows: Sequence[Instruction | Conversation]) -> list[EncodedText | str]:
        """Return the tokens of each row; or, as text, why the template cannot take it."""
        only_last = self.spec.turns == "last"
        chats = [chat_of(row).up_to_last_answer() for row in rows]
        return self._tokenised([self._rendered(self._all, chat, only_last) for chat in chats])

    def encode_pairs(
        self, pairs: Sequence[PreferencePair]
    ) -> list[tuple[EncodedText | str, EncodedText | str]]:
        """Return the tokens of the chosen and the rejected chat of each pair, as `encode` does."""
        chats = [chat for pair in pairs for chat in chats_of_pair(pair)]
        texts = self._tokenised([self._rendered(self._last, chat, None) for chat in chats])
        found = [each if isinstance(each, str) else replace(each, is_pair=True) for each in texts]
        return list(zip(found[::2], found[1::2], strict=True))

    def prompt_ids(self, row: PromptRow) -> list[int]:
        """Return the ids up to the place where the last answer of a row begins.

        Raises:
            ModelError: The template cannot take the row's turns.
        """
        renderer = self._last if isinstance(row, PreferencePair) else self._all
        before = prompt_of(row)
        chat = Chat((*before.turns, {"role": "assistant", "content": _PROBE}), before.tools)
        fit = self._fit(renderer, chat)
        if fit.adaptation is None:
            raise ModelError(f"{REFUSED}: {fit.problem}", REMEDY)
        marked, mark = self._control.mark(fit.adaptation(chat).before(-1))
        try:
            text = self._control.unmark(renderer.render(marked, asks=True), mark, [])
        except TemplateError as error:
            raise ModelError(f"{REFUSED}: {error}", REMEDY) from None
        [tokens] = tokenise(self.tokenizer, [text])
        return list(tokens.ids)

    def _fit(self, renderer: Renderer, chat: Chat) -> Fit:
        only_last = renderer is self._last or self.spec.turns == "last"
        key = (structure_of(chat), only_last)
        if key not in self._fits:
            self._fits[key] = fit_structure(renderer, key[0], only_last=only_last)
        return self._fits[key]

    def _rendered(self, renderer: Renderer, chat: Chat, only_last: bool | None) -> MarkedText | str:
        """Render the turns of a row; of a pair, for which `only_last` is None, the answer alone."""
        fit = self._fit(renderer, chat)
        if fit.adaptation is None:
            return f"{REFUSED}: {fit.problem}"
        marked, mark = self._control.mark(fit.adaptation(chat))
        try:
            if only_last is None:
                found = render_pair_answer(renderer, marked)
            else:
                found = render_answers(renderer, marked, only_last=only_last)
        except TemplateError as error:
            return f"{REFUSED}: {error}"
        if _lacks_words(found, marked, only_last=only_last is not False):
            return f"{REFUSED}: it leaves out words of an answer"
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
    """Return the form for a tokenizer, with what it has found out about the template so far."""
    return PromptForm(tokenizer, spec)
