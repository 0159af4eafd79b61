"""Parser of the JSON that users and programs hand in; its items go to `inbox/inbox.py`.

`fccl learn` and the HTTP endpoint take the same JSON: an object is one item, with the field names
that data sets use and an optional `task` that names its stream. Error messages never contain any of
the text. `inbox/record_parser.py` reads the fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from common.config.config import IncrementalConfig
from common.errors import DataError
from worker.incremental.inbox import items, record_parser
from worker.incremental.inbox.items import Item
from worker.incremental.serving.served_run import ServedRun

TASK_FIELD = "task"
_BYTES_PER_CHAR = 12  # most bytes of JSON for one character: two surrogates, each as \uXXXX
_OTHER_BYTES = 64 * 1024  # allowance for fields that are ignored


def max_json_bytes(limits: IncrementalConfig) -> int:
    """Return the most bytes that the JSON of an acceptable item can have."""
    return _BYTES_PER_CHAR * limits.max_chars + _OTHER_BYTES


def parse_json(data: bytes) -> object:
    """Return the value of a JSON document.

    Raises:
        DataError: The bytes are not UTF-8 or not JSON, or are nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError("not UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise DataError(f"not valid JSON ({error.msg}: {where}column {error.colno})") from None
    except ValueError:  # a number of thousands of digits
        raise DataError("not valid JSON (a number is too long)") from None
    except RecursionError:
        raise DataError("JSON is nested too deeply") from None


@dataclass(frozen=True)
class ItemParser:
    """Parser of items for one client of a served run, which has certain classes and kinds."""

    limits: IncrementalConfig
    served: ServedRun
    task: str = items.DEFAULT_TASK  # stream of items that do not name one

    def parse(self, record: object) -> Item:
        """Return the item that a decoded JSON value describes.

        Raises:
            DataError: The value is no item, or the run does not learn items of its kind.
        """
        if not isinstance(record, Mapping):
            raise DataError("not a JSON object")
        task = record.get(TASK_FIELD)
        if task is None:
            task = self.task
        if not isinstance(task, str):
            raise DataError("the task is not a valid name")
        return record_parser.parse(
            {name: value for name, value in record.items() if name != TASK_FIELD},
            max_chars=self.limits.max_chars,
            labels=self.served.labels,
            kinds=self.served.kinds,
            task=task,
        )
