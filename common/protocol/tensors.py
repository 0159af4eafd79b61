"""Types of named tensors on the wire and in aggregation: numpy arrays, so no torch is needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Tensors = dict[str, Array]
"""Adapter tensors by name, as in PEFT's `adapter_model.safetensors`; float32, C order."""
