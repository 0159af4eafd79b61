"""Asks a client's current model, beside the worker that teaches it: for `fccl try`.

The worker leaves its model on the disk (`served`, `schema`); here it is loaded a second time, on
the CPU even where there is a GPU: a model more on the card that trains could be one too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.errors import DataError, ModelError
from common.model_cache import find_installed
from common.protocol.tensors import Tensors
from common.protocol.versions import CurrentModel
from learning.data.row_types import LabelledText
from learning.evaluation.generation import Sampling, generate
from learning.evaluation.inference import class_probabilities
from learning.models import lora
from learning.objectives.classification import ClassEncoder
from learning.objectives.template import format_prompt
from learning.training.device import Compute, available_cores
from worker.incremental.serving import served_run
from worker.incremental.serving.client_model import ClientModel, load_client_model
from worker.models.loaded import AdapterModel, ModelCache


@dataclass(frozen=True)
class Prediction:
    """What a model says of a text.

    Attributes:
        version: The global version that the model is, or was taught on top of.
        local: Whether it has learned something here that the global version has not.
        text: The answer; of a classifier the likeliest class.
        probabilities: By class, the likeliest first; empty where the model does not classify.
    """

    version: int
    local: bool
    text: str
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Predictor:
    """A client's model in memory. It is loaded when it is first followed."""

    def __init__(self, state: Path, client_id: str, cache: Path) -> None:
        """Nothing is loaded yet.

        Args:
            state: The state directory of the client's worker.
            client_id: Whose model.
            cache: Where base models are.
        """
        self._state, self._client, self._cache = state, client_id, cache
        compute = Compute(torch.device("cpu"), available_cores(), autocast=False)
        torch.set_num_threads(compute.threads)
        self._models = ModelCache(compute)
        self._now: ClientModel | None = None

    def follow(self) -> ClientModel:
        """Become what the client's model is now.

        Raises:
            DataError: No worker has brought a model yet, or a file is damaged.
            ModelError: The base model is not on this machine, or cannot be loaded.
        """
        found = load_client_model(self._state, self._client)
        if self._now is None or found.mark != self._now.mark:
            lora.write_adapter(self._loaded(found.model).model, found.adapter)
            self._now = found
        return found

    def reply(self, text: str, new_tokens: int, drawn: Sampling | None = None) -> Prediction:
        """What the client's model says, as it is now.

        Args:
            text: To be classified, or an instruction.
            new_tokens: Length limit of an answer.
            drawn: How to draw an answer; None for the likeliest.

        Raises:
            DataError: See `follow`.
            ModelError: See `follow`.
        """
        now = self.follow()
        return self._say(now.model, now.local, text, new_tokens, drawn)

    def common(self, text: str, new_tokens: int) -> Prediction:
        """What the newest global version says, without what was learned here.

        Raises:
            DataError: See `follow`.
            ModelError: See `follow`.
        """
        now = self.follow()
        model, adapter = self._global(now)
        lora.write_adapter(self._loaded(model).model, adapter)
        self._now = None  # also where this is interrupted: the next question restores it
        return self._say(model, False, text, new_tokens, None)

    def _global(self, now: ClientModel) -> tuple[CurrentModel, Tensors]:
        found = served_run.model(self._state, now.model.run)
        if found is None:
            raise DataError(
                f"the newest version of run {now.model.run} is gone from {self._state}",
                "the next task of a worker brings it back",
            )
        return found

    def _loaded(self, model: CurrentModel) -> AdapterModel:
        path = find_installed(model.base.digest, self._cache)
        if path is None:
            raise ModelError(
                f"the base model {model.base.digest[:12]} is not in {self._cache / 'models'}",
                "start `fccl worker` here: it fetches it; or set FCCL_CACHE as the worker has it",
            )
        return self._models.load(model.objective, path, model.base.digest, model.lora, model.labels)

    def _say(
        self,
        model: CurrentModel,
        local: bool,
        text: str,
        new_tokens: int,
        drawn: Sampling | None,
    ) -> Prediction:
        loaded = self._loaded(model)
        if model.objective != "classification":
            asked = [format_prompt(text)]
            [answer] = generate(loaded.model, loaded.tokenizer, asked, new_tokens, sampling=drawn)
            return Prediction(model.version, local, answer)
        row = LabelledText(text, model.labels[0])  # of some class: it is not looked at
        encoded = ClassEncoder(model.labels).encode(loaded.tokenizer, [row], model.max_length)
        [found] = class_probabilities(loaded.model, encoded.examples, 1)
        ordered = sorted(zip(model.labels, found, strict=True), key=lambda pair: -pair[1])
        return Prediction(model.version, local, ordered[0][0], dict(ordered))
