"""Settings of a site, as a frozen model with defaults; unknown keys and wrong types are errors.

`worker.settings.loader` reads them; `worker.settings.template` documents every key.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from common.config.section import Section
from learning.training.memory import MemorySettings
from worker.settings.accepted_models import check_pattern
from worker.settings.bandwidth import parse_rate
from worker.settings.hours import Window, parse_window

ALWAYS, UNLIMITED = "always", "unlimited"
MAX_MICRO_BATCH = 4096


def _check_micro_batch(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_MICRO_BATCH):
        return value
    raise ValueError(f'must be "auto" or a whole number from 1 to {MAX_MICRO_BATCH}')


def _check_checkpointing(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError('must be "auto", true or false')


def _check_hours(windows: tuple[str, ...]) -> tuple[str, ...]:
    for window in windows:
        parse_window(window)
    return windows


def _check_rate(text: str) -> str:
    if text != UNLIMITED:
        parse_rate(text)
    return text


def _strings(value: Any) -> Any:
    """Return a text as a tuple of one, and a list as a tuple; `always` is the empty one."""
    if isinstance(value, str):
        return () if value in (ALWAYS, "") else (value,)
    return tuple(value) if isinstance(value, list) else value


Bandwidth = Annotated[str, AfterValidator(_check_rate)]


class SiteSettings(Section):
    """What the people of a site decide about its machine."""

    micro_batch: Annotated[Literal["auto"] | int, BeforeValidator(_check_micro_batch)] = "auto"
    checkpointing: Annotated[Literal["auto"] | bool, BeforeValidator(_check_checkpointing)] = "auto"
    device: Annotated[str, Field(min_length=1, max_length=50)] = "auto"
    compile: bool = False
    evaluation: bool = True
    share_updates: bool = False
    accept: Annotated[
        tuple[Annotated[str, AfterValidator(check_pattern)], ...],
        Field(max_length=100),
        BeforeValidator(_strings),
    ] = ()
    review: bool = False
    hours: Annotated[
        tuple[str, ...],
        Field(max_length=50),
        BeforeValidator(_strings),
        AfterValidator(_check_hours),
    ] = ()
    upload: Bandwidth = UNLIMITED
    download: Bandwidth = UNLIMITED

    @property
    def memory(self) -> MemorySettings:
        return MemorySettings(
            micro_batch=None if self.micro_batch == "auto" else self.micro_batch,
            checkpointing=None if self.checkpointing == "auto" else self.checkpointing,
        )

    @property
    def windows(self) -> tuple[Window, ...]:
        """Spans of time in which the site works; none: always."""
        return tuple(map(parse_window, self.hours))

    @property
    def upload_rate(self) -> float | None:
        """Limit in bytes per second; None for no limit."""
        return None if self.upload == UNLIMITED else parse_rate(self.upload)

    @property
    def download_rate(self) -> float | None:
        """Limit in bytes per second; None for no limit."""
        return None if self.download == UNLIMITED else parse_rate(self.download)

    def describe(self) -> str:
        """Return the settings that are not the defaults, in one line."""
        texts = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.default:
                texts.append(f"{name} {_as_text(value)}")
        return ", ".join(texts) or "defaults"


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " + ".join(value) if isinstance(value, tuple) else str(value)
