"""Errors of a command that mean "out of memory", as errors with a remedy."""

from __future__ import annotations

import sys

from common.errors import ModelError


def translate(error: BaseException) -> ModelError | None:
    """Return the error to report if memory ran out, in torch or elsewhere; otherwise None."""
    if isinstance(error, MemoryError):
        return _ERROR
    if "torch" not in sys.modules:  # then it is not torch's, which takes seconds to import
        return None
    from learning.training.out_of_memory import is_out_of_memory

    return _ERROR if is_out_of_memory(error) else None


_ERROR = ModelError(
    "out of memory", "close other programs, lower model.max_length, or use a smaller model"
)
