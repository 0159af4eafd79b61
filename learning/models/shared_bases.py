"""One copy of a frozen base model per process, for all models that are built on it.

A demo trains, samples and reports in one process. Each of them has modules of its own, with its own
adapter and mode, but the frozen weights in them are the same tensors. They are freed when the last
such model is gone.

In the data path: `learning.models.adapted` calls it; `learning.models.objective_model` loads.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

from transformers import PreTrainedModel

from common.protocol.manifest import is_model_file
from learning.models.loader import LoadedModel
from learning.models.quantized import shared_state

_HOLDER = "_shared_base"
_lock = threading.Lock()
_bases: WeakValueDictionary[tuple[object, ...], _SharedBase]


class _SharedBase:
    """A loaded base model, which nobody runs or changes."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        loaded.model.requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def copy(self) -> LoadedModel:
        """Return a model of its own modules around the same frozen weights."""
        model = self._loaded.model
        shared: list[object] = [*model.parameters(), *shared_state(model)]
        own: PreTrainedModel = copy.deepcopy(model, {id(each): each for each in shared})
        vars(own)[_HOLDER] = self  # alive as long as the copy
        return LoadedModel(own, copy.deepcopy(self._loaded.tokenizer))


_bases = WeakValueDictionary()


def load_shared(
    path: Path, key: tuple[object, ...], load: Callable[[], LoadedModel]
) -> LoadedModel:
    """Return a model whose frozen weights it shares with all others of this path and key.

    The caller may attach factors to it and train those, but must not change its own weights, nor
    move or cast the model.

    Args:
        path: Directory of the base model; loaded again once its files have changed.
        key: Everything else on which the loaded model depends.
        load: Loads it.
    """
    files = sorted(file for file in path.iterdir() if is_model_file(file.name))
    states = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    whole = (path.resolve(), states, *key)
    with _lock:  # two threads must not load the same model at once
        base = _bases.get(whole)
        if base is None:
            base = _bases[whole] = _SharedBase(load())
        return base.copy()
