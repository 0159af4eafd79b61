"""Checks of this machine: software, model, rows, disk and processors."""

from __future__ import annotations

import os
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

from cli.doctor.checks import CheckContext, CheckResult
from common.byte_sizes import format_bytes
from common.config.config import FederationConfig
from common.errors import DataError, ModelError
from common.protocol.fields import RowKind
from common.protocol.wire import SCHEMAS
from common.software import software_version

PACKAGES = ("torch", "transformers", "peft", "pika", "redis")
DISK_WARN, DISK_FAIL = 5 << 30, 1 << 30  # bytes


def check_software(context: CheckContext) -> CheckResult:
    protocol = f"protocol {' and '.join(map(str, SCHEMAS))}"
    versions = [software_version(), protocol, f"Python {platform.python_version()}"]
    missing = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        remedy = "install fccl with its dependencies: pip install -c constraints.txt ."
        return CheckResult("software", "fail", f"without {', '.join(missing)}", remedy)
    return CheckResult("software", "ok", ", ".join(versions))


def check_model(context: CheckContext) -> CheckResult:
    """Check that the base model is here or available; nothing is downloaded or built."""
    from common.protocol import codec
    from common.protocol.manifest import make_manifest
    from learning.models import base, hub
    from learning.offline import builder

    model, name = context.config.model, context.config.model.name

    def digest(path: Path) -> str:
        return f"digest {codec.digest(make_manifest(path))[:12]}"

    if name.startswith(builder.PREFIX):
        try:
            path = builder.find_built(name, context.cache)
        except ModelError:  # its package is needed at the coordinator only
            if context.side != "worker":
                raise
            path = None
        if path is not None:
            return CheckResult("model", "ok", f"{name} in {context.cache}, {digest(path)}")
        make = "the coordinator builds it, in about a minute"
        fetch = "workers fetch it from the coordinator"
        text = fetch if context.side == "worker" else make
        return CheckResult("model", "ok", f"{name} is not there yet: {text}")
    if Path(name).expanduser().is_dir():
        found = base.resolve(name, None, context.cache, lambda message, fraction: None)
        return CheckResult("model", "ok", f"{name}, digest {found.digest[:12]}")
    if not hub.is_hub_id(name) and context.side == "worker":
        text = f"{name} is not on this machine: it is fetched from the coordinator"
        return CheckResult("model", "ok", text)
    if not hub.is_hub_id(name):  # raises an error that explains the names of models
        base.resolve(name, None, context.cache, lambda message, fraction: None)
    if (snapshot := hub.cached_snapshot(name, model.revision)) is not None:
        text = f"{name} at commit {snapshot.revision[:12]}, downloaded, {digest(snapshot.path)}"
        return CheckResult("model", "ok", text)
    commit = hub.resolve_commit(name, model.revision)
    return CheckResult(
        "model", "ok", f"{name} is on the hub, at commit {commit[:12]}; not downloaded yet"
    )


def check_data(context: CheckContext) -> CheckResult:
    """Check the rows: their number, their clients, and those that cannot be used."""
    config, data = context.config, context.data
    if data is not None and not data.exists():
        raise DataError(f"{data} does not exist", "check --data")
    if data is not None and data.is_file():
        return _source(config, config.kinds[0], str(data))
    clients = config.run.path / "clients"
    if context.side == "worker":
        return _files(data or clients, required=data is not None)
    from preparation.data import is_prepared

    folder = data or (Path(config.data.dir) if config.data.dir else clients)
    if is_prepared(folder):
        return _prepared(folder)
    if data is not None:
        return _files(data, required=True)
    if config.sites_only and config.evaluation.rows is None:
        return CheckResult("data", "ok", "data.clients = 0: all rows stay at the sites")
    sources = {kind: config.evaluation.rows or config.data.source(kind) for kind in config.kinds}
    checks = [_source(config, kind, source) for kind, source in sources.items()]
    worst = max(checks, key=lambda check: ("ok", "warn", "fail").index(check.status))
    return CheckResult(
        "data", worst.status, "; ".join(check.text for check in checks), worst.remedy
    )


def _source(config: FederationConfig, kind: RowKind, source: str) -> CheckResult:
    """Check rows that are not partitioned yet."""
    from learning.data import hub_data, rows, sources

    if source != sources.SYNTHETIC and (named := rows.on_hub(source)) is not None:
        return CheckResult(
            "data", "ok", f"{kind}: data set {source}, {hub_data.describe_availability(named)}"
        )
    data = config.data
    found = sources.load_source(
        kind, source, count=data.rows, seed=config.run.seed, columns=data.columns,
        labels=data.labels, on_message=lambda line: None,
    )  # fmt: skip
    whose = "held out" if config.sites_only else f"for {data.clients} clients"
    text = f"{kind}: {len(found.rows)} rows of {source} {whose}"
    if found.omissions:
        count, first = len({part.place for part in found.omissions}), found.omissions[0]
        text += f"; {count} used in part (the first in line {first.line}: {first.reason})"
    check = _with_skipped(text, [(skip.line, skip.reason) for skip in found.skipped])
    if len(found.rows) <= 3 * data.clients:  # each client needs three, and one is held out
        remedy = "lower data.clients, or give more rows"
        return CheckResult("data", "fail", f"too few rows: {check.text}", remedy)
    return check


def _with_skipped(text: str, skipped: Sequence[tuple[int, str]]) -> CheckResult:
    if not skipped:
        return CheckResult("data", "ok", text)
    line, reason = skipped[0]
    text += f"; {len(skipped)} cannot be used (the first in line {line}: {reason})"
    return CheckResult("data", "warn", text, "correct them, or name their fields with data.columns")


def _prepared(folder: Path) -> CheckResult:
    """Check rows that `fccl prepare` or a coordinator has partitioned."""
    from learning.data import prepared_data

    prepared = prepared_data.load(folder)
    prepared_data.check_files(prepared)
    notes = "".join(f"; {note}" for note in prepared_data.rating_notes(prepared))
    text = f"{folder}, prepared: {_per_client(prepared.rows())}{notes}"
    return CheckResult("data", "ok", text)


def _files(folder: Path, *, required: bool) -> CheckResult:
    """Check the files of the clients that a worker serves."""
    from learning.data import rows
    from worker.data.shards import ClientData

    counts: dict[str, dict[RowKind, int]] = {}
    skipped: list[tuple[int, str]] = []
    for kind in get_args(RowKind):
        for client, path in ClientData(folder).files(kind).items():
            found = rows.read(kind, path)
            counts.setdefault(client, {})[kind] = len(found.rows)
            skipped += [(skip.line, f"{path.name}: {skip.reason}") for skip in found.skipped]
    if counts:
        return _with_skipped(f"{folder}: {_per_client(counts)}", skipped)
    if required:
        raise DataError(
            f"{folder} has no client's rows", "a client's file is called client_0_sft.jsonl"
        )
    text = f"no rows in {folder}: the coordinator writes them when it starts"
    return CheckResult("data", "warn", text, "if they are elsewhere, name their folder with --data")


def _per_client(counts: dict[str, dict[RowKind, int]]) -> str:
    clients = [
        f"{client} {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
        for client, kinds in sorted(counts.items())[:8]
    ]
    more = len(counts) - len(clients)
    total = sum((Counter(kinds) for kinds in counts.values()), Counter[RowKind]())
    rows = " and ".join(f"{count} {kind}" for kind, count in total.items())
    others = f"; and {more} more" if more else ""
    return f"{len(counts)} clients, {rows} rows to learn ({'; '.join(clients)}{others})"


def check_disk(context: CheckContext) -> CheckResult:
    """Check that runs and models have room, and that their folders can be written."""
    folders = {"runs": Path(context.config.run.dir), "cache": context.cache}
    texts, least = [], DISK_WARN
    for name, folder in folders.items():
        path = _existing(folder.absolute())
        free = shutil.disk_usage(path).free
        texts.append(f"{name} {format_bytes(free)} free")
        least = min(least, free)
        if not os.access(path, os.W_OK | os.X_OK):
            setting = "run.dir" if name == "runs" else "FCCL_CACHE"
            remedy = f"set {setting} to a folder that you may write"
            return CheckResult("disk", "fail", f"{folder} cannot be written", remedy)
    text = ", ".join(texts)
    if least < DISK_WARN:
        return CheckResult("disk", "fail" if least < DISK_FAIL else "warn", text, "free some space")
    return CheckResult("disk", "ok", text)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def check_compute(context: CheckContext) -> CheckResult:
    """Check cores and GPU, and measure whether bfloat16 is fast."""
    import torch

    from learning.training.device import available_cores, detect

    compute = detect()
    texts = [f"{available_cores()} cores"]
    if compute.device.type == "cuda":
        properties = torch.cuda.get_device_properties(compute.device)
        texts.append(f"{properties.name} with {format_bytes(properties.total_memory)}")
    else:
        texts.append("no GPU")
    texts.append("bfloat16 is fast and used" if compute.autocast else "bfloat16 is no faster here")
    return CheckResult("compute", "ok", ", ".join(texts))
