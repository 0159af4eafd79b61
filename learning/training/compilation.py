"""`torch.compile` for a model's blocks, for workers that are started with `--compile`.

Block by block, not the model as a whole: the blocks of a model are alike, so one is compiled and
all use it, and code that changes with every batch (the objectives read only some positions of the
head) stays outside. Lengths are symbolic from the start, so that no batch width costs a
compilation.

Data path: `worker.models.loaded` calls this once per loaded model; `learning.training.fast_path`
then leaves its own kernels out.
"""

from __future__ import annotations

import os
import shutil

from torch import nn

from common.errors import ConfigError


def check_compiler(device: str) -> None:
    """Check for the C++ compiler that kernels for the CPU need, before the first step fails.

    Raises:
        ConfigError: There is none.
    """
    name = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(name) is None:
        raise ConfigError(
            f"--compile needs a C++ compiler, and there is no {name}",
            "install g++, or leave --compile out",
        )


def compile_blocks(model: nn.Module, backend: str = "inductor") -> int:
    """Compile a transformers model's repeated blocks in place; return how many there are.

    Names of parameters stay as they are.
    """
    names = {name for part in model.modules() for name in _block_classes(part)}
    blocks = [part for part in model.modules() if type(part).__name__ in names]
    for part in blocks:
        part.compile(backend=backend, dynamic=True)
    return len(blocks)


def is_compiled(model: nn.Module) -> bool:
    return any(getattr(part, "_compiled_call_impl", None) for part in model.modules())


def _block_classes(part: nn.Module) -> set[str]:
    """Return class names of the parts that transformers does not split over devices: the blocks."""
    # Embeddings are among them in some models; compiling them gains nothing.
    named = getattr(part, "_no_split_modules", None) or ()
    return {name for name in named if "Embedding" not in name}
