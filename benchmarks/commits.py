"""Cost of a commit: memory per parameter, and time after a long history of versions.

    python -m benchmarks.commits [--parameters N] [--codecs fp32 bf16 int8] [--history N]

`bytes per parameter` is the highest resident set of a process that makes one version of three
updates, without what it takes before that, divided by the number of parameters. Files that are
mapped count as well, although the system can take their pages back.

`ratio` is the time of three commits after so many versions, divided by that after ten.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from broker.chunks import parse_chunk
from common.protocol import codec
from common.protocol.fields import CodecName
from common.protocol.tensors import Tensors
from common.protocol.updates import Update
from common.protocol.wire import pack
from coordinator.aggregation.rules.factor import FactorRule
from coordinator.core.events import CommitPart, CommitVersion
from coordinator.core.state import BufferedUpdate
from coordinator.ingest import ingest
from coordinator.storage.commit import write_version
from coordinator.storage.spool import Spool, upload_name
from coordinator.storage.versions import Versions
from tests.support.long_history import federation_with_history, work_until_the_end
from tests.support.polled_federation import CHUNK
from tests.support.virtual_federation import make_stats

TENSORS = 48
UPDATES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parameters", type=int, default=24_000_000)
    parser.add_argument("--codecs", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--history", type=int, default=100_000)
    parser.add_argument("--measure", metavar="DIRECTORY", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure), args.codecs[0])))
        return
    for name in args.codecs:
        with tempfile.TemporaryDirectory() as directory:
            write_inputs(Path(directory), name, args.parameters)
            command = [sys.executable, "-m", "benchmarks.commits", "--measure", directory]
            made = subprocess.run([*command, "--codecs", name], capture_output=True, check=True)
            used = json.loads(made.stdout)
        print(f"{name}: {used / args.parameters:.1f} bytes per parameter")
    if args.history:
        ingest.parse_chunk = partial(parse_chunk, chunk_bytes=CHUNK)
        short, long = (seconds_of_commits(count) for count in (10, args.history))
        print(f"3 commits after 10 versions: {short:.2f} s, after {args.history:,}: {long:.2f} s,")
        print(f"ratio {long / short:.2f}")


def write_inputs(directory: Path, name: CodecName, parameters: int) -> None:
    """Write version 0 and the updates of the next one."""
    versions, spool = open_run(directory, name)
    size = parameters // TENSORS
    random = np.random.default_rng(0)

    def tensors() -> Tensors:
        return {f"t{i}": random.standard_normal(size, np.float32) for i in range(TENSORS)}

    versions.place(0, versions.stage(0, tensors()).sha256)
    uploads = []
    for number in range(UPDATES):
        layout, data = codec.encode(name, tensors())
        frame = pack(
            Update(
                task_id=f"t{number}", attempt=1, client_id="c", worker_id="w", phase=0,
                base_version=0, stats=make_stats(), codec=name, layout=layout.digest,
                sha256=codec.digest(data),
            ),
            data,
        )  # fmt: skip
        uploads.append(upload_name("local", codec.digest(frame)))
        spool.write(uploads[-1], 0, frame)
    (directory / "uploads.json").write_text(json.dumps(uploads))


def measure(directory: Path, name: CodecName) -> int:
    """Make a version, and return the bytes of memory that this took at its peak."""
    versions, spool = open_run(directory, name)
    parts = []
    for number, upload in enumerate(json.loads((directory / "uploads.json").read_text())):
        update = BufferedUpdate(f"t{number}", 1, "c", "w", 0, make_stats(), 1.0, 1, upload)
        parts.append(CommitPart(update, 0, 1.0, 0.3, 1.0, 1.0, 0.3))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    write_version(CommitVersion(1, 0, tuple(parts)), FactorRule(), versions, spool, 0.0)
    return peak() - before


def open_run(directory: Path, name: CodecName) -> tuple[Versions, Spool]:
    return Versions(directory / "versions", {"peft_type": "LORA"}, name), Spool(directory / "spool")


def peak() -> int:
    """Return the highest resident set of this process, in bytes (on Linux).

    `ru_maxrss` would also count the process that started this one.
    """
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def seconds_of_commits(history: int) -> float:
    """Return the seconds from the first task to the end of a run, three commits later."""
    with tempfile.TemporaryDirectory() as directory:
        federation = federation_with_history(Path(directory), history)
        issued: list[float] = []
        once_issued = federation.once_issued

        def note(begin: object) -> None:
            def act() -> None:
                issued.append(time.perf_counter())
                begin()  # type: ignore[operator]

            once_issued(act)

        federation.once_issued = note  # type: ignore[method-assign]
        work_until_the_end(federation)
        return time.perf_counter() - issued[0]


if __name__ == "__main__":
    main()
