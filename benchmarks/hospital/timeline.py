"""Timeline of an arm: what happens to its sites and when, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.hospital.network import Network
from benchmarks.hospital.scenario import Scenario


@dataclass(frozen=True)
class Result:
    """Times of an arm, in seconds since the epoch, and its traffic."""

    began: float
    cut_at: float
    restored_at: float
    lost_at: float
    ended: float
    nbytes: int  # between the sites and the servers, both directions
    load: float  # mean load of this machine
    versions: tuple[tuple[float, str], ...] = ()  # time and file of each version, oldest first

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load_from(cls, path: Path) -> Result:
        table = json.loads(path.read_text(encoding="utf-8"))
        table["versions"] = tuple((at, name) for at, name in table["versions"])
        return cls(**table)


def play(
    scenario: Scenario,
    network: Network,
    began: float,
    lose: Callable[[], None],
    say: Callable[[str], None],
) -> Result:
    """Let the scenario happen, and return when everything happened.

    Args:
        scenario: The scenario.
        network: The networks of the sites.
        began: When the first tasks went out, in seconds since the epoch.
        lose: Kills the processes of the site that is lost.
        say: Called with a line for each event.
    """
    loads: list[float] = []

    def wait(until_s: float) -> float:
        end = began + scenario.scaled(until_s)
        while (rest := end - time.time()) > 0:
            time.sleep(min(rest, 5.0))
            loads.append(float(Path("/proc/loadavg").read_text().split()[0]))
        return time.time()

    cut_at = wait(scenario.cut_at_s)
    network.cut.set()
    say("the network is cut")
    restored_at = wait(scenario.cut_at_s + scenario.cut_s)
    network.cut.clear()
    say("the network is back")
    lost_at = wait(scenario.lost_at_s)
    lose()
    say(f"{scenario.lost} is lost")
    ended = wait(scenario.end_s)
    load = sum(loads) / max(1, len(loads))
    return Result(began, cut_at, restored_at, lost_at, ended, network.nbytes, round(load, 1))
