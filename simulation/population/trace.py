"""Trace file: properties of clients, one client a line, as CSV with a header.

    client          the client's id, as `client_0`
    speed           local steps per `simulation.step_s`, above 0
    latency_s       of every message
    upload_mbps     megabits per second; 0: no limit
    download_mbps
    dropout         probability that the answer to a task is lost
    off             times at which the machine is off, in seconds: `300-660 1200-1500`
    cuts            times at which its network is cut, in the same form
    gone_at         time at which it is gone for good

Only `client` and `speed` are required. An empty field, and a column that is missing, have the value
of the setting; those of `off` are none.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import ConfigError
from simulation.population.availability import Interval, merge

COLUMNS = (
    "client",
    "speed",
    "latency_s",
    "upload_mbps",
    "download_mbps",
    "dropout",
    "off",
    "cuts",
    "gone_at",
)
_SPANS = ("off", "cuts")

Row = Mapping[str, float | tuple[Interval, ...]]
"""Values of the columns that a line has."""


def read_trace(path: Path, clients: Sequence[str]) -> dict[str, Row]:
    """Return the line of every client.

    Raises:
        ConfigError: The file cannot be read, a value is wrong, or its clients are others than
            those of the run; names the file, the line and the remedy.
    """
    rows: dict[str, Row] = {}
    known = set(clients)
    for line, fields in _records(path):
        where = f"{path}, line {line}"
        name = fields.get("client", "")
        if name not in known:
            raise ConfigError(
                f"{where}: {name[:80]!r} is no client of this run",
                f"its clients are {_list(clients)}: set data.clients, or correct the name",
            )
        if name in rows:
            raise ConfigError(f"{where}: {name} has a line already", "remove one of them")
        rows[name] = {
            key: _spans(where, key, text) if key in _SPANS else _number(where, key, text)
            for key, text in fields.items()
            if key != "client" and text
        }
        if "speed" not in rows[name]:
            raise ConfigError(f"{where}: {name} has no speed", "give one above 0")
    missing = [name for name in clients if name not in rows]
    if missing:
        raise ConfigError(
            f"{path} has no line for {_list(missing)}", "add one, or set data.clients to fewer"
        )
    return rows


def _records(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"the trace file {path} cannot be read: {reason}", "correct simulation.trace"
        ) from None
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or "client" not in header or "speed" not in header or len(set(header)) < len(header):
        what = f"column {unknown[0][:40]!r} is unknown" if unknown else "the columns are not right"
        raise ConfigError(
            f"{path}, line 1: {what}",
            f"begin with client,speed; further columns are {', '.join(COLUMNS[2:])}",
        )
    records = []
    for fields in reader:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) > len(header):
            raise ConfigError(
                f"{path}, line {reader.line_num}: {len(fields)} fields, but {len(header)} columns",
                "remove the extra commas; spans are separated by blanks",
            )
        values = [field.strip() for field in fields]
        records.append((reader.line_num, dict(zip(header, values, strict=False))))
    return records


def _number(where: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if key == "speed" and not (0 < value < math.inf):
        raise ConfigError(f"{where}: speed {text[:40]!r} is not a number above 0", "correct it")
    if key == "dropout" and not 0 <= value < 1:
        raise ConfigError(f"{where}: dropout {text[:40]!r} is not from 0 to below 1", "correct it")
    if not (0 <= value < math.inf):
        raise ConfigError(f"{where}: {key} {text[:40]!r} is not a number from 0 up", "correct it")
    return value


def _spans(where: str, key: str, text: str) -> tuple[Interval, ...]:
    found = []
    for part in text.split():
        first, _, last = part.partition("-")
        try:
            start, end = float(first), float(last) if last else math.inf
        except ValueError:
            start, end = math.nan, math.nan
        if not 0 <= start < end:
            raise ConfigError(
                f"{where}: {key} has {part[:40]!r}, which is no span of seconds",
                "write START-END, as 300-660, or START- for good; separate spans by blanks",
            )
        found.append((start, end))
    return merge(found)


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} others"
