"""Errors of libraries that any command may meet, as errors with a remedy: memory and disk."""

from __future__ import annotations

import sys

from common.errors import FcclError, ModelError


def translate(error: BaseException) -> FcclError | None:
    """Return the error to report if memory ran out or the disk refused; otherwise None."""
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY
    if "torch" in sys.modules:  # otherwise it is not torch's, which takes seconds to import
        from learning.training.out_of_memory import is_out_of_memory

        if is_out_of_memory(error):
            return _OUT_OF_MEMORY
    from common import disk_errors  # loads sqlite3, which `fccl --help` does without

    return disk_errors.translate(error)


_OUT_OF_MEMORY = ModelError(
    "out of memory", "close other programs, lower model.max_length, or use a smaller model"
)
