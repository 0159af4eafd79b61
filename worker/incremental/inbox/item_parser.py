"""What people and programs hand in becomes items here, on its way to `worker/incremental/inbox/inbox.py`.

`fccl learn` and the endpoint of a worker take the same JSON: an object is an item, whose fields
have the names that data sets give them; its `task`, if there is one, names the stream. No reason
for a refusal holds any of the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from common.config.config import IncrementalConfig
from common.errors import DataError
from worker.incremental.inbox import items
from worker.incremental.inbox.items import Item
from worker.incremental.serving.served_run import ServedRun

STREAM = "task"  # the field that names it
_ESCAPED = 12  # bytes of JSON for a character at most: a pair of surrogates, each as \uXXXX
_REST = 64 * 1024  # fields that are none of the item's


def max_json_bytes(limits: IncrementalConfig) -> int:
    """How long the JSON of one item may be: no item that is taken is longer."""
    return _ESCAPED * limits.max_chars + _REST


def parse_json(data: bytes) -> object:
    """What JSON says.

    Raises:
        DataError: It is none, or is nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(f"it is no JSON ({error.msg}: {where}column {error.colno})") from None
    except ValueError:  # a number of thousands of digits
        raise DataError("it is no JSON that can be read") from None
    except RecursionError:
        raise DataError("it is nested too deeply") from None


@dataclass(frozen=True)
class ItemParser:
    """What one client's inbox takes.

    Attributes:
        limits: Of `[incremental]`.
        served: What the client's run learns, as its worker told last.
        task: The stream of an item that names none.
    """

    limits: IncrementalConfig
    served: ServedRun
    task: str = items.TASK

    def item(self, record: object) -> Item:
        """An item from a record of JSON.

        Raises:
            DataError: It is none, or not of this run.
        """
        if not isinstance(record, Mapping):
            raise DataError("it is no JSON object")
        task = record.get(STREAM)
        if task is None:
            task = self.task
        if not isinstance(task, str):
            raise DataError("the task is no name")
        return items.parse(
            {name: value for name, value in record.items() if name != STREAM},
            max_chars=self.limits.max_chars,
            labels=self.served.labels,
            kinds=self.served.kinds,
            task=task,
        )
