"""Data sets of the Hugging Face hub: data files only, never code of a data set.

The data set's commit is looked up first, with a short timeout: a hub that cannot be reached is
normal on many machines, and `datasets` would retry for half a minute. Then `datasets` downloads
that commit into its cache, where it is found again without the network.

In the data path: called by `learning.data.rows` for a source that is not a file. Next:
`learning.data.row_parser` makes rows of the records.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from common.errors import DataError
from common.urls import check_proxies
from learning.data.tables import ColumnTable, NumberedRecords, with_class_names
from learning.models.hub import TIMEOUT

SOURCE_SYNTAX = (
    "owner/name, owner/name:split or owner/name:config/split; a revision goes after the name, @"
)
_SOURCE = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(@(?P<revision>[\w.-]{1,100}))?"
    r"(:((?P<config>[\w.+-]{1,100})/)?(?P<split>[\w.-]{1,100}))?"
)


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub; parts that are None are looked up."""

    name: str  # owner/name
    revision: str | None = None  # branch, tag or commit; None takes the newest commit
    config: str | None = None  # needed where the data set has several and no default
    split: str | None = None  # None takes the first of the caller's preferences that exists


FetchDataset = Callable[[HubSource, Sequence[str], Callable[[str], None]], Any]
"""(source, preferred splits, on_message) → a `datasets.Dataset` or `IterableDataset`."""


def parse_source(source: str) -> HubSource | None:
    """Return the data set that a text of the form `SOURCE_SYNTAX` names; None for other texts."""
    match = _SOURCE.fullmatch(source)
    if match is None or ".." in source:
        return None
    return HubSource(match["name"], match["revision"], match["config"], match["split"])


def as_table(data: Any, name: str, names: Collection[str]) -> ColumnTable:
    """Return the records of a `datasets.Dataset` or `IterableDataset`.

    Args:
        name: Name of the data set in messages.
        names: Column names to read, in lower case; the others may be large, such as images.

    Raises:
        DataError: While iterating, when a record cannot be read.
    """
    features = data.features or {}
    classes = {
        column: list(feature.names)
        for column, feature in features.items()
        if type(feature).__name__ == "ClassLabel"
    }
    columns = tuple(features) or None
    media: dict[str, bool] = {}  # images are not decoded: their presence is enough
    if columns is not None:
        used = [column for column in columns if column.lower() in names]
        media = {column: True for column in used if _is_media(features[column])}
        data = data.select_columns([column for column in used if column not in media])

    def records() -> NumberedRecords:
        number = 0
        try:
            for number, record in enumerate(data, 1):
                yield number, with_class_names({**record, **media}, classes)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{name}: the rows after {number} cannot be read ({type(error).__name__})",
                "remove it from the cache of datasets and fetch it again",
            ) from None

    return ColumnTable(columns, records())


def _is_media(feature: Any) -> bool:
    """Return whether a column holds images, videos or sounds, or lists of them."""
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else feature)
    return type(inner).__name__ in ("Image", "Audio", "Video")


def fetch(source: HubSource, splits: Sequence[str], on_message: Callable[[str], None]) -> Any:
    """Download a split of a data set, or find it where it was downloaded before.

    Raises:
        DataError: The hub cannot be reached, has no such data set, revision, configuration or
            split, or gates it; or the data set is defined by a loading script.
    """
    check_proxies(os.environ)
    on_message(f"looking up data set {source.name} on the hub")
    # As in learning.models.hub: the hub's HTTP errors have no common base class that lasts.
    try:
        info = huggingface_hub.dataset_info(source.name, revision=source.revision, timeout=TIMEOUT)
    except Exception as error:
        known = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)
        if known or (builder := cached_builder(source)) is None:
            raise _data_error(source, error) from None
        on_message(f"the hub cannot be reached: using data set {source.name} from the cache")
        return _split(source, splits, builder)
    code = f"{source.name.split('/')[1]}.py"
    if any(file.rfilename == code for file in info.siblings or []):
        raise DataError(
            f"data set {source.name} is defined by a loading script, which is never run",
            "give a data set of plain files, or a file",
        )
    try:
        on_message(f"downloading data set {source.name}")
        return _split(source, splits, _builder(source, info.sha))
    except DataError:
        raise
    except Exception as error:
        if info.gated:
            raise _gated(source) from None
        raise _data_error(source, error) from None


def describe_availability(source: HubSource) -> str:
    """Return in a few words whether the hub has a data set, without downloading it.

    Raises:
        DataError: The hub cannot be reached, has no such data set or revision, or gates it; and the
            data set was not downloaded before.
    """
    check_proxies(os.environ)
    try:
        info = huggingface_hub.dataset_info(source.name, revision=source.revision, timeout=TIMEOUT)
    except Exception as error:
        if cached_builder(source) is None:
            raise _data_error(source, error) from None
        return "downloaded before; the hub does not answer"
    if info.gated:
        return "on the hub, gated: its terms must be accepted there"
    return f"on the hub at commit {str(info.sha)[:12]}"


def _builder(source: HubSource, commit: str | None) -> Any:
    import datasets  # noqa: PLC0415 - slow to import, and needed for hub data alone

    datasets.disable_progress_bars()
    return datasets.load_dataset_builder(source.name, source.config, revision=commit)


def cached_builder(source: HubSource) -> Any | None:
    """Return the builder of a data set in the cache of `datasets`, without a request to the hub."""
    # The public functions ask the hub first, five times, with growing pauses.
    from datasets.packaged_modules.cache.cache import Cache  # noqa: PLC0415

    try:
        builder = Cache(
            dataset_name=source.name.split("/")[1],
            repo_id=source.name,
            config_name=source.config,
            version="auto",
            hash="auto",
        )
    except Exception:  # whatever the reason: it is not cached, and the first error is reported
        return None
    return builder if source.revision in (None, builder.hash) else None


def _split(source: HubSource, preferred: Sequence[str], builder: Any) -> Any:
    """Return one split of a data set, chosen before the download where its splits are known."""
    splits = tuple(builder.info.splits or builder.config.data_files or ())
    if splits:
        _choose(source, preferred, splits)
    builder.download_and_prepare()
    return builder.as_dataset(split=_choose(source, preferred, tuple(builder.info.splits)))


def _choose(source: HubSource, preferred: Sequence[str], splits: Sequence[str]) -> str:
    candidates = preferred if source.split is None else [source.split]
    for name in candidates:
        if name in splits:
            return name
    if source.split is None and len(splits) == 1:
        return splits[0]
    raise DataError(
        f"data set {source.name} has no split {' or '.join(candidates)}",
        f"write {source.name}:split with one of {', '.join(splits)}",
    )


def _gated(source: HubSource) -> DataError:
    return DataError(
        f"data set {source.name} is gated",
        "accept its terms on the hub and run `hf auth login`, or give a file",
    )


def _data_error(source: HubSource, error: Exception) -> DataError:
    match error:
        case GatedRepoError():
            return _gated(source)
        case RevisionNotFoundError():
            return DataError(
                f"data set {source.name} has no revision {source.revision}",
                "check the part after @",
            )
        case RepositoryNotFoundError():
            return DataError(
                f"there is no file {source.name}, and the hub has no data set of that name"
                " (or it is private)",
                f"check the name; a data set is {SOURCE_SYNTAX}",
            )
        case ValueError() if "onfig" in str(error):  # BuilderConfig not found, or none given
            reason = " ".join(str(error).split("Example of usage")[0].split())
            return DataError(f"data set {source.name}: {reason}", "write owner/name:config/split")
    return DataError(
        f"{source.name}: there is no such file, and for a data set of that name the hub cannot be"
        f" reached ({type(error).__name__})",
        "give the path of a data file, or synthetic",
    )
