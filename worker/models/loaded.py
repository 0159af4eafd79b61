"""Cache of a base model with an adapter attached, loaded once and kept between tasks.

Callers first write the tensors of an adapter into it (`learning.models.lora.write_adapter`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.protocol.fields import ObjectiveName
from common.protocol.tasks import LoraSpec, ModelPrecision
from learning.models.adapted import AdapterModel, load_adapted
from learning.models.precision import FLOAT32, weight_format
from learning.training.compilation import compile_blocks
from learning.training.device import Compute


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
        precision: ModelPrecision | None = None,
    ) -> AdapterModel:
        """Return the model for an objective, and load it unless it is the current one.

        `base` is the directory of the base model, and `digest` its digest. Without `settings` all
        parameters are trained. Only `classification` has a head, with one output for each label.
        `precision` is that of the run; None stands for the defaults.

        Raises:
            ModelError: The model cannot be loaded, or takes no such adapter.
        """
        weights = weight_format(precision, autocast=self.compute.autocast)
        if settings is None and not weights.quantized:
            weights = FLOAT32  # all of them are trained
        key = (digest, settings, objective == "classification", tuple(labels), weights)
        if self._loaded is None or self._key != key:
            self._loaded = None  # frees the old model's memory first
            loaded = load_adapted(objective, base, labels, self.compute.device, settings, weights)
            if self.compute.compiled:
                compile_blocks(loaded.model)
            self._key, self._loaded = key, loaded
        return self._loaded
