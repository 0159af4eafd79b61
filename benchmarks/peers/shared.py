"""What every side reads and writes; it imports numpy alone, for all environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]


class ClientUpdate(NamedTuple):
    """Δ of a client, its rows, and how many versions old its base was."""

    client: str
    rows: int
    staleness: int
    delta: Arrays


def read_updates(folder: Path) -> tuple[Arrays, list[list[ClientUpdate]]]:
    """Return version 0, and the updates of each version after it."""
    table = json.loads((folder / "updates.json").read_text(encoding="utf-8"))
    with np.load(folder / "updates.npz") as file:
        arrays = {name: file[name] for name in file.files}
    names = [name.removeprefix("start/") for name in arrays if name.startswith("start/")]
    start = {name: arrays[f"start/{name}"] for name in names}
    rounds = [
        [
            ClientUpdate(
                each["client"],
                each["rows"],
                each["staleness"],
                {name: arrays[f"{number}/{index}/{name}"] for name in names},
            )
            for index, each in enumerate(own)
        ]
        for number, own in enumerate(table)
    ]
    return start, rounds


def write_versions(path: Path, versions: dict[str, list[Arrays]]) -> None:
    """Write the versions of each algorithm."""
    arrays = {
        f"{algorithm}|{number}|{name}": tensor
        for algorithm, own in versions.items()
        for number, version in enumerate(own)
        for name, tensor in version.items()
    }
    np.savez(path, **arrays)


def read_versions(path: Path) -> dict[str, list[Arrays]]:
    """Return what `write_versions` wrote."""
    found: dict[str, dict[int, Arrays]] = {}
    with np.load(path) as file:
        for key in file.files:
            algorithm, number, name = key.split("|")
            found.setdefault(algorithm, {}).setdefault(int(number), {})[name] = file[key]
    return {name: [own[i] for i in sorted(own)] for name, own in found.items()}
