"""Generation of answers: the likeliest continuation of a prompt, or a sampled one.

In the data path: called by `evaluation.evaluator` for the samples of a report, and by
`worker.incremental.serving.predictor` for the answers to a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from learning.evaluation.measurement import evaluation_mode
from learning.prompts.form import PromptForm
from learning.prompts.messages import PromptRow


@dataclass(frozen=True)
class Sampling:
    """Settings of nucleus sampling (Holtzman et al. 2020)."""

    seed: int  # of the draws, which happen on the model's device
    temperature: float = 0.9  # divides the logits
    top_p: float = 0.95  # probability of the set of likeliest tokens to draw from


def generate(
    model: PreTrainedModel | PeftModel,
    form: PromptForm,
    rows: Sequence[PromptRow],
    max_new_tokens: int,
    should_stop: Callable[[], bool] = lambda: False,
    sampling: Sampling | None = None,
) -> list[str]:
    """Return the model's last answer to each row, without a repetition of four tokens in a row.

    Args:
        rows: Rows whose own last answer is left out; a prompt that leaves too little of the model's
            context loses its beginning.
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
    with evaluation_mode(model), _token_choice(sampling, model.device) as options:
        out: torch.Tensor = cast(Any, model).generate(
            input_ids=ids,
            attention_mask=mask.to(model.device),
            max_new_tokens=new_tokens,
            pad_token_id=end,
            eos_token_id=list(form.end_ids),
            no_repeat_ngram_size=4,  # a small model's most likely text is a loop
            stopping_criteria=[lambda ids, *_, **__: _for_each_row(ids, should_stop())],
            **options,
        )
    texts = (form.tokenizer.decode(row, skip_special_tokens=True) for row in out[:, width:])
    return [str(text).strip() for text in texts]


def _for_each_row(ids: torch.Tensor, value: bool) -> torch.Tensor:
    """Return the same value for each row, as transformers expects of a stopping criterion."""
    return torch.full((ids.shape[0],), value, dtype=torch.bool, device=ids.device)


@contextmanager
def _token_choice(sampling: Sampling | None, device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the options that choose tokens; torch's random state is restored after sampling."""
    if sampling is None:
        yield {"do_sample": False}
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        yield {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
        }
