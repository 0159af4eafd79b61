"""Base model with an adapter attached, loaded once and kept between tasks.

Callers first write the tensors of an adapter into it (`learning.models.lora.write_adapter`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from common.protocol.fields import ObjectiveName
from common.protocol.tasks import LoraSpec
from learning.models import lora, objective_model
from learning.models.lora import AdaptedModel
from learning.training.compilation import compile_blocks
from learning.training.device import Compute


@dataclass(frozen=True)
class AdapterModel:
    """Model and its tokenizer."""

    model: AdaptedModel
    tokenizer: PreTrainedTokenizerBase


class ModelCache:
    """Cache of one model: the one that was used last."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self._key: tuple[object, ...] = ()
        self._loaded: AdapterModel | None = None

    @property
    def current(self) -> AdapterModel | None:
        return self._loaded

    def load(
        self,
        objective: ObjectiveName,
        base: Path,
        digest: str,
        settings: LoraSpec | None,
        labels: Sequence[str],
    ) -> AdapterModel:
        """Return the model for an objective, and load it unless it is the current one.

        `base` is the directory of the base model, and `digest` its digest. Without `settings` all
        parameters are trained. Only `classification` has a head, with one output for each label.

        Raises:
            ModelError: The model cannot be loaded, or takes no such adapter.
        """
        key = (digest, settings, objective == "classification", tuple(labels))
        if self._loaded is None or self._key != key:
            self._loaded = None  # frees the old model's memory first
            loaded = objective_model.load_for_objective(
                objective, base, labels, self.compute.device
            )
            model = lora.attach(loaded.model, settings, seed=0)  # its tensors are overwritten
            if self.compute.compiled:
                compile_blocks(model)
            self._key, self._loaded = key, AdapterModel(model, loaded.tokenizer)
        return self._loaded
