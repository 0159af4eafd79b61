"""Answers by a client's current model, for `fccl try`.

The worker saves its models on the disk (`served_run`, `client_model`). They are loaded a second
time here, on the CPU even where there is a GPU: the card that trains may have no room for another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.errors import DataError, ModelError
from common.model_cache import find_installed
from common.protocol.versions import CurrentModel
from learning.data.row_types import Instruction, LabelledText
from learning.evaluation.generation import Sampling, generate
from learning.evaluation.inference import class_probabilities
from learning.models import lora
from learning.models.adapted import AdapterModel
from learning.objectives.classification import ClassEncoder
from learning.prompts.form import prompt_form
from learning.training.device import Compute, available_cores
from worker.incremental.serving import served_run
from worker.incremental.serving.client_model import ClientModel, load_client_model
from worker.models.loaded import ModelCache
from worker.settings.accepted_models import check_accepted


@dataclass(frozen=True)
class Prediction:
    """Answer of a model to a text."""

    version: int  # global version that the model is, or was trained on top of
    local: bool  # whether the model has learned something that the global version has not
    text: str  # for a classifier the most probable class
    # By class, the highest first; empty if the model generates.
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Predictor:
    """Client's model in memory; loaded on first use.

    Args:
        accept: Patterns of the base models that the site accepts now; empty for all. A worker may
            have saved the model under earlier settings.
    """

    def __init__(
        self, state: Path, client_id: str, cache: Path, accept: Sequence[str] = ()
    ) -> None:
        self._state, self._client, self._cache = state, client_id, cache
        self._accept = accept
        compute = Compute(torch.device("cpu"), available_cores(), autocast=False)
        torch.set_num_threads(compute.threads)
        self._models = ModelCache(compute)
        self._loaded: ClientModel | None = None

    def refresh(self) -> ClientModel:
        """Load the client's model if it has changed, and return it.

        Raises:
            DataError: No worker has saved a model yet, or a file is damaged.
            ModelError: The base model is not on this machine, is not accepted by the site, or
                cannot be loaded.
        """
        found = load_client_model(self._state, self._client)
        check_accepted(self._accept, found.model.base)
        if self._loaded is None or found.revision != self._loaded.revision:
            lora.write_adapter(self._base(found.model).model, found.adapter)
            self._loaded = found
        return found

    def predict(self, text: str, new_tokens: int, sampling: Sampling | None = None) -> Prediction:
        """Return the answer of the client's model, as it is now: sampled, or the most probable."""
        now = self.refresh()
        return self._answer(now.model, now.local, text, new_tokens, sampling)

    def predict_global(self, text: str, new_tokens: int) -> Prediction:
        """Return the answer of the newest global version, without what was learned here."""
        run = self.refresh().model.run
        found = served_run.load_model(self._state, run)
        if found is None:
            raise DataError(
                f"the newest version of run {run} has disappeared from {self._state}",
                "wait for the worker's next task, with which it is saved again",
            )
        model, adapter = found
        self._loaded = None  # `predict` restores it, also after an interruption here
        lora.write_adapter(self._base(model).model, adapter)
        return self._answer(model, False, text, new_tokens, None)

    def _base(self, model: CurrentModel) -> AdapterModel:
        path = find_installed(model.base.digest, self._cache)
        if path is None:
            raise ModelError(
                f"the base model {model.base.digest[:12]} is not in {self._cache / 'models'}",
                "start `fccl worker` here, which fetches it, or set FCCL_CACHE to the worker's",
            )
        return self._models.load(
            model.objective, path, model.base.digest, model.lora, model.labels, model.precision
        )

    def _answer(
        self,
        model: CurrentModel,
        local: bool,
        text: str,
        new_tokens: int,
        sampling: Sampling | None,
    ) -> Prediction:
        loaded = self._base(model)
        if model.objective != "classification":
            form = prompt_form(loaded.tokenizer, model.prompt)
            [answer] = generate(
                loaded.model, form, [Instruction(text, "", "")], new_tokens, sampling=sampling
            )
            return Prediction(model.version, local, answer)
        row = LabelledText(text, model.labels[0])  # any class will do: it is not used
        encoded = ClassEncoder(model.labels).encode(loaded.tokenizer, [row], model.max_length)
        [found] = class_probabilities(loaded.model, encoded.examples)
        ordered = sorted(zip(model.labels, found, strict=True), key=lambda pair: -pair[1])
        return Prediction(model.version, local, ordered[0][0], dict(ordered))
