"""Loss and accuracy of versions on held-out rows, measured after the arms, the same for both."""

from __future__ import annotations

from pathlib import Path

from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun
from learning.data import rows
from learning.models import lora
from learning.models.adapted import load_adapted
from learning.models.precision import FLOAT32
from learning.objectives import registry
from learning.training.device import Compute


class Heldout:
    """Held-out rows, and the model that they are measured with."""

    def __init__(self, run: RecordedRun, base: Path, path: Path, compute: Compute) -> None:
        config = run.config
        objective = config.phase[0].objective
        loaded = load_adapted(
            objective, base, run.labels, compute.device, config.model.lora, FLOAT32
        )
        self._model = loaded.model
        self._objective = registry.make_objective(objective, None, run.labels)
        self._examples = self._objective.encode(
            loaded.tokenizer, rows.read("cls", path).rows, config.model.max_length
        ).examples

    def measure(self, tensors: Tensors) -> tuple[float, float]:
        """Return the mean loss in nats and the accuracy of a version."""
        lora.write_adapter(self._model, tensors)
        found = self._objective.measure(self._model, self._examples, autocast=False)
        return found.loss, found.accuracy or 0.0
