"""Offline base models: a small GPT-2, made from the English that this machine holds.

A federation must be able to run where no hub is reachable, and its perplexity must mean something
there. So the model is made once: text from `learning/corpus`, a byte-level tokenizer, and a fixed
number of training steps from a fixed seed. Built models lie in the cache under their recipe's
name; a build that is killed leaves nothing behind, and of two builds that start at once one waits.

In the data path: `learning/base` calls `make` for a name that begins with `offline:`. Training
itself is `learning/pretraining`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from filelock import FileLock

from common.errors import ModelError
from learning.pretraining import Recipe, pretrain
from learning.reading import Sizes, reading

PREFIX = "offline:"
DEFAULT = "offline:gpt2-tiny"

RECIPES = {
    "gpt2-tiny": Recipe(),
    # For tests: made in a few seconds, real in every part, and good for nothing else.
    "gpt2-micro": Recipe(
        pieces=512, positions=512, layers=1, width=64, heads=2, fitting=10, steps=10, batch=8,
        length=64, sizes=Sizes(found=400, prose=100, world=100, primer=1), packages=(),
    ),
}  # fmt: skip


def _folder(name: str, recipe: Recipe) -> str:
    """The cache's folder of a recipe: with another recipe or reader it is another model.

    What other packages say is left out on purpose: an upgrade of one must not make a new base.
    """
    own = reading([], recipe.sizes, recipe.seed)
    return f"{name}-{hashlib.sha256(repr((astuple(recipe), own)).encode()).hexdigest()[:12]}"


def make(name: str, cache: Path, report: Callable[[str, float], None]) -> Path:
    """Return the directory of an offline model, and build it first if it is not cached.

    Args:
        name: `offline:` and the name of a recipe: `offline:gpt2-tiny` for users,
            `offline:gpt2-micro` for tests.
        cache: Folder under which `models/` holds what was built.
        report: Told of progress, from 0 to 1; not called when the model is cached.

    Raises:
        ModelError: No recipe has this name, or the cache cannot be written.
    """
    short = name.removeprefix(PREFIX)
    if short not in RECIPES:
        known = ", ".join(PREFIX + each for each in RECIPES)
        raise ModelError(f"there is no offline model {name!r}", f"known are {known}")
    target = cache / "models" / _folder(short, RECIPES[short])
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.is_dir():  # another process may have built it while this one waited
                build(RECIPES[short], target, report)
    except OSError as error:
        raise ModelError(
            f"model cache {cache} cannot be written: {error.strerror or error}",
            "free space there, or choose another cache folder",
        ) from None
    return target


def build(recipe: Recipe, target: Path, report: Callable[[str, float], None]) -> None:
    """Build into a temporary directory beside `target`, then rename it into place."""
    temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        pretrain(recipe, temporary, report)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
