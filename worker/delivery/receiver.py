"""Receiver of a delivery: fetches the final and the best version of a run, and keeps them.

What the coordinator publishes (`coordinator/publish/delivery.py`) is treated as hostile: sizes are
limited before anything is fetched, blobs are those of their digests, tensors are decoded by the
same code as in tasks, and every file is written here under a fixed name. Several workers of a site
receive a delivery once.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from common.errors import ModelError, RunError, StoreError, WireError
from common.files import sync_tree
from common.model_cache import find_installed
from common.protocol.adapter_frame import unpack_adapter
from common.protocol.delivery import (
    AdapterModules,
    DeliveredAdapter,
    DeliveredCard,
    DeliveredVersion,
    Delivery,
    unpack_delivery,
)
from common.protocol.tensors import Tensors
from common.store.errors import StorePermissionError
from common.store.store import Store
from common.text import one_line
from learning.models import export
from learning.models.export import BASE_FOLDER, ExportedModel
from learning.models.lora import delivered_config
from worker.delivery.delivered import (
    BEST,
    FINAL,
    Delivered,
    delivered_folder,
    read_delivered,
    write_delivered,
)
from worker.settings.bandwidth import Throttle, TransferStopped

LOCK_S = 0.5  # between two looks at another worker's lock
SPARE = 64 << 20  # bytes for the tokenizer and the card, beside the tensors
CARD = "README.md"


@dataclass(frozen=True)
class DeliveryPlaces:
    """Folders of a site: its state directory, and the base models of this machine."""

    state: Path
    cache: Path


def receive_delivery(
    store: Store, run: str, places: DeliveryPlaces, throttle: Throttle, stop: Flag
) -> Delivered | None:
    """Fetch what a finished run delivers; None if there is nothing, or `stop` was set.

    Raises:
        StoreError: The store is out of reach, or does not hold the versions any more.
        WireError: The delivery is damaged.
        ModelError: The base model, which a whole model needs, is not on this machine.
        RunError: The state directory cannot be written.
    """
    folder = delivered_folder(places.state, run)
    if (known := read_delivered(folder)) is not None:
        return known
    try:
        frame = store.get_delivery(run)
    except StorePermissionError:  # a coordinator of an earlier release, which delivers nothing
        return None
    if frame is None:
        return None
    delivery, modules = unpack_delivery(frame, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _hold(folder.with_name(".delivered.lock"), stop):
            if (known := read_delivered(folder)) is not None:
                return known  # by another worker of this site
            return _Receiver(store, delivery, modules, places, throttle, stop).receive(folder)
    except TransferStopped:
        return None
    except (OSError, SafetensorError) as error:
        raise _disk_error(folder, getattr(error, "strerror", None) or str(error)) from None


@contextmanager
def _hold(path: Path, stop: Flag) -> Iterator[None]:
    """Hold a lock, which another worker may have for long; raise `TransferStopped` on `stop`."""
    lock = FileLock(path)
    while not stop.is_set():
        try:
            lock.acquire(timeout=LOCK_S)
        except Timeout:
            continue
        try:
            yield
        finally:
            lock.release()
        return
    raise TransferStopped


class _Receiver:
    """Receiver of one delivery."""

    def __init__(
        self,
        store: Store,
        delivery: Delivery,
        modules: AdapterModules,
        places: DeliveryPlaces,
        throttle: Throttle,
        stop: Flag,
    ) -> None:
        self._store, self._delivery, self._modules = store, delivery, modules
        self._throttle, self._stop = throttle, stop
        self._base = find_installed(delivery.base.digest, places.cache)

    def receive(self, folder: Path) -> Delivered:
        final, best = self._delivery.final, self._delivery.best
        for leftover in folder.iterdir():
            _remove(leftover)
        self._write(final, folder / FINAL)
        if best is not None and best.version == final.version:
            (folder / BEST).symlink_to(FINAL)
        elif best is not None:
            self._write(best, folder / BEST)
        number = None if best is None else best.version
        delivered = Delivered(self._delivery.run, self._delivery.at, final.version, number)
        write_delivered(folder, delivered)
        return delivered

    def _write(self, version: DeliveredVersion, out: Path) -> None:
        header, tensors = unpack_adapter(self._fetch(version.adapter, version.version))
        if header.version != version.version:
            raise WireError(f"the adapter is of version {header.version}, not {version.version}")
        needed = sum(array.nbytes for array in tensors.values()) + SPARE
        if (free := shutil.disk_usage(out.parent).free) < needed:
            text = f"{free >> 20} MiB are free, {needed >> 20} MiB are needed"
            raise _disk_error(out.parent, text)
        temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
        try:
            self._write_model(tensors, version.version, temporary)
            if version.card is not None:
                text = _clean(self._fetch(version.card, version.version))
                (temporary / CARD).write_text(text, encoding="utf-8")
            sync_tree(temporary)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_model(self, tensors: Tensors, version: int, out: Path) -> None:
        """Write what `fccl export` writes at the coordinator, with a link to the base model."""
        found, base = self._delivery, self._base
        model = ExportedModel(
            objective=found.objective,
            base=found.base,
            path=base or out,
            labels=found.labels,
            lora=found.lora,
            config={} if found.lora is None else delivered_config(found.lora, self._modules),
            tensors=tensors,
            prompt=found.prompt,
            run=found.run,
            version=version,
        )
        if base is None and found.lora is None:
            raise ModelError(
                f"the base model {export.base_label(found.base)} is not on this machine, and the"
                " delivered model cannot be written without its tokenizer",
                "start the worker with --base DIR",
            )
        if base is None:
            export.write_bare_adapter(model, out)
        elif found.lora is None:
            export.write_model(model, out, "float32")
        else:
            with_base = None if found.objective == "classification" else False
            export.write_adapter(model, out, with_base)
            if found.base.kind != "hub" and not (out / BASE_FOLDER).exists():
                (out / BASE_FOLDER).symlink_to(base.resolve())

    def _fetch(self, blob: DeliveredAdapter | DeliveredCard, version: int) -> bytes:
        data = self._store.get_blob(
            self._delivery.run,
            blob.sha256,
            blob.nbytes,
            lambda nbytes: self._throttle.pace(nbytes, self._stop),
        )
        if data is None:
            raise StoreError(
                f"version {version} of run {self._delivery.run} is not in the store any more",
                "ask the coordinator's operator for `fccl coordinator --resume`, which delivers it"
                " again",
            )
        return data


def _clean(card: bytes) -> str:
    """Return the text of a card without control characters, which terminals obey."""
    try:
        text = card.decode()
    except UnicodeDecodeError:
        raise WireError("the card is not UTF-8 text") from None
    return "\n".join(one_line(line) for line in text.split("\n"))


def _remove(path: Path) -> None:
    """Remove what an interrupted delivery left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _disk_error(folder: Path, reason: str) -> RunError:
    return RunError(
        f"the delivered versions cannot be written to {folder}: {reason}",
        "make room, and start the worker again",
    )
