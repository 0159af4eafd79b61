"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets.files import FILES
from tests.fuzz.targets.http import HTTP
from tests.fuzz.targets.models import MODELS
from tests.fuzz.targets.protocol import PROTOCOL
from tests.fuzz.targets.runs import RUNS

TARGETS: dict[str, Target] = {
    target.name: target for target in (*PROTOCOL, *FILES, *HTTP, *RUNS, *MODELS)
}
