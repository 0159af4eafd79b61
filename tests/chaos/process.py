"""Program of the processes under test: `fccl` with a clock to move, a witness, and small chunks.

Chunks are small so that updates of tiny models have several, which may be lost, repeated and
reordered. `python -m tests.chaos.process` takes the arguments of `fccl`.
"""

from __future__ import annotations

import os

from tests.chaos import clock, witness

CHUNK_BYTES = 4096


def main() -> None:
    """Run an `fccl` command by `sys.argv`."""
    clock.install()
    from cli.main import main as fccl

    use_small_chunks()
    if witness.VARIABLE in os.environ:
        witness.install()
    fccl()


def use_small_chunks() -> None:
    """Split updates into chunks of `CHUNK_BYTES`; all processes of a federation must do this."""
    from broker.chunks import parse_chunk, split_update

    split_update.__defaults__ = (CHUNK_BYTES,)
    _, *rest = parse_chunk.__defaults__ or ()
    parse_chunk.__defaults__ = (CHUNK_BYTES, *rest)


if __name__ == "__main__":
    main()
