"""Recognition of errors that mean "out of memory", and what frees memory after one.

CUDA has a class of its own for it, the CPU's allocator only a message. Where Linux promises more
memory than it has, a process is killed instead of getting an error; `worker.spool` counts that.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.memory import release_free_memory

_MESSAGES = (
    "not enough memory",  # DefaultCPUAllocator
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
    "could not create a memory",  # oneDNN
)
REMEDY = "lower model.max_length, use model.quantization, or close other programs"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch or Python says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


@contextmanager
def noting_out_of_memory() -> Iterator[list[str]]:
    """Suppress an error that says that memory ran out, and note its name in the list.

    The error is not kept: its traceback holds the tensors of the failed computation.
    """
    failed: list[str] = []
    try:
        yield failed
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed.append(type(error).__name__)


def free_memory() -> None:
    """Free what a failed computation has left; the error itself must not be referenced any more."""
    gc.collect()
    release_free_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
