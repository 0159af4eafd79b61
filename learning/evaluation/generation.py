"""Generation of answers: the likeliest continuation of a prompt, or a sampled one.

An answer ends with the tokens that end answers in training (`PromptForm.end_ids`). The base model's
own `generation_config.json` is ignored: its end token often differs, and its sampling, penalties
and forced tokens would change even the likeliest answer.

In the data path: called by `evaluation.evaluator` for the samples of a report, and by
`worker.incremental.serving.predictor` for the answers to a user; `learning.models.export` writes
the same settings into every export.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from learning.evaluation.measurement import evaluation_mode
from learning.prompts.form import PromptForm
from learning.prompts.messages import PromptRow

REPEATED = 4
"""Length of token sequences that an answer may have twice only: small models tend to loop."""


@dataclass(frozen=True)
class Sampling:
    """Settings of nucleus sampling (Holtzman et al. 2020)."""

    seed: int  # of the draws, which happen on the model's device
    temperature: float = 0.9  # divides the logits
    top_p: float = 0.95  # probability of the set of likeliest tokens to draw from


def generation_config(form: PromptForm) -> GenerationConfig:
    """Return settings for greedy answers that end as in training."""
    ends, tokenizer = form.end_ids, form.tokenizer
    pad = tokenizer.pad_token_id
    make: Any = GenerationConfig  # untyped in transformers
    settings: GenerationConfig = make(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else list(ends),
        pad_token_id=pad if isinstance(pad, int) else ends[0],
        do_sample=False,
        use_cache=True,
    )
    return settings


def generate(
    model: PreTrainedModel | PeftModel,
    form: PromptForm,
    rows: Sequence[PromptRow],
    max_new_tokens: int,
    should_stop: Callable[[], bool] = lambda: False,
    sampling: Sampling | None = None,
) -> list[str]:
    """Generate the last answer of each row.

    Args:
        rows: Their own last answers are ignored. A prompt that leaves no room for the answer in the
            model's context loses its beginning.
        max_new_tokens: Longest answer, in tokens.
        should_stop: Called before every token; once it returns True, the answers end where they
            are.
        sampling: How to sample answers; None takes the likeliest token each time.
    """
    if not rows:
        return []
    context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
    new_tokens = min(max_new_tokens, context - 1)
    fitting = [form.prompt_ids(row)[-(context - new_tokens) :] for row in rows]
    width, end = max(map(len, fitting)), form.end_ids[0]
    # One batch, padded at the left: a token of three answers costs hardly more than of one.
    ids = torch.tensor([[end] * (width - len(row)) + row for row in fitting], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in fitting])
    settings: Any = generation_config(form)
    settings.update(max_new_tokens=new_tokens, pad_token_id=end, **_token_choice(sampling))
    with (
        evaluation_mode(model),
        _random_state(sampling, model.device),
        _only_settings(model, settings),
    ):
        out: torch.Tensor = cast(Any, model).generate(
            input_ids=ids,
            attention_mask=mask.to(model.device),
            generation_config=settings,
            logits_processor=[_NoLoops(width, form.end_ids)],
            stopping_criteria=[lambda ids, *_, **__: _for_each_row(ids, should_stop())],
        )
    return [_text(form, row) for row in out[:, width:].tolist()]


def _text(form: PromptForm, ids: list[int]) -> str:
    """Return the text of an answer up to the token that ends it, without control tokens.

    Control strings that are text consist of ordinary tokens, and are kept.
    """
    end = next((i for i, each in enumerate(ids) if each in form.end_ids), len(ids))
    return str(form.tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()


class _NoLoops(LogitsProcessor):
    """Logits processor that prevents the same four tokens in a row from occurring a third time.

    Unlike transformers' `no_repeat_ngram_size`, it allows an answer to quote its prompt and to
    repeat a phrase once, and never prevents it from ending.
    """

    def __init__(self, start: int, end_ids: Sequence[int]) -> None:
        self._start, self._end_ids = start, frozenset(end_ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores (rows, vocabulary) without the tokens that would complete a loop."""
        answers = input_ids[:, self._start :].tolist()
        for row, answer in enumerate(answers):
            if looping := _looping(answer) - self._end_ids:
                scores[row, list(looping)] = -torch.inf
        return scores


def _looping(answer: list[int]) -> set[int]:
    """Return the tokens that have followed the answer's last three twice before."""
    before = REPEATED - 1
    last = answer[len(answer) - before :]
    places = range(len(answer) - before) if len(answer) > before else ()
    counts = Counter(answer[i + before] for i in places if answer[i : i + before] == last)
    return {token for token, count in counts.items() if count > 1}


@contextmanager
def _only_settings(
    model: PreTrainedModel | PeftModel, settings: GenerationConfig
) -> Iterator[None]:
    """Replace the model's own settings, from which `generate` takes all that are not set."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    own = inner.generation_config
    inner.generation_config = settings
    try:
        yield
    finally:
        inner.generation_config = own


def _for_each_row(ids: torch.Tensor, value: bool) -> torch.Tensor:
    """Return the same value for each row, as transformers expects of a stopping criterion."""
    return torch.full((ids.shape[0],), value, dtype=torch.bool, device=ids.device)


def _token_choice(sampling: Sampling | None) -> dict[str, Any]:
    """Return the settings that choose tokens."""
    if sampling is None:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
    }


@contextmanager
def _random_state(sampling: Sampling | None, device: torch.device) -> Iterator[None]:
    """Draw from the seed of a sampling, and restore torch's random state afterwards."""
    if sampling is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        yield
