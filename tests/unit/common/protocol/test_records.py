"""The limits of the records' fields; their way over the wire is in `test_wire.py`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from common.protocol.heartbeat import Heartbeat
from common.protocol.tasks import (
    LocalTraining,
    Receipt,
)
from common.protocol.updates import TensorEntry
from tests.support.records import EXAMPLES, RECEIPT


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RECEIPT.task_id = "t2"


def test_a_record_survives_json() -> None:
    for record in EXAMPLES:
        assert type(record).model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("text", ["\x1b]0;owned\x07", "line\nline", "\x9b2J", "a\u2028b", "\x7f"])
def test_text_for_people_has_no_terminal_escapes(text: str) -> None:
    receipt = Receipt(task_id="t1", attempt=1, state="rejected", reason=text)
    assert receipt.reason.isprintable()


@pytest.mark.parametrize("label", ["", ".hidden", "-x", "a/b", "a b", "a\n", "é", "a" * 65])
def test_an_identifier_is_neither_a_path_nor_an_option(label: str) -> None:
    with pytest.raises(ValidationError):
        Receipt(task_id=label, attempt=1, state="accepted")


@pytest.mark.parametrize("shape", [(0,), (-1, 2), (2**31 + 1,), (1,) * 9])
def test_a_shape_is_positive_and_bounded(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        TensorEntry(name="a", shape=shape, offset=0, nbytes=0)


@pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
def test_progress_is_a_share(progress: float) -> None:
    with pytest.raises(ValidationError):
        Heartbeat(worker_id="w", site="s", state="training", progress=progress)


@pytest.mark.parametrize(("steps", "epochs"), [(0, 0), (5, 1)])
def test_training_takes_steps_or_epochs_but_not_both(steps: int, epochs: int) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        LocalTraining(steps=steps, epochs=epochs, batch_size=4, lr=1e-3, max_length=64)
