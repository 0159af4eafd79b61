"""Asks the external validator in threads of their own: a worker trains on while it thinks.

One lesson of each client at a time. Whatever becomes of the worker, no command is left behind.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from worker.incremental.validation import validator
from worker.incremental.validation.validator import ValidationRequest, ValidatorVerdict

AT_ONCE = 4  # of a worker of many clients: the others wait for their turn, and for the time-out


@dataclass
class _Question:
    thread: threading.Thread
    answer: list[ValidatorVerdict] = field(default_factory=list)


class BackgroundValidator:
    """Of one worker."""

    def __init__(self, spec: str, timeout_s: float) -> None:
        """Nothing is asked yet.

        Args:
            spec: Of `incremental.validator`, checked; empty for none.
            timeout_s: For one answer.
        """
        self._spec, self._timeout_s = spec, timeout_s
        self._questions: dict[str, _Question] = {}
        self._stopped = threading.Event()
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    @property
    def wanted(self) -> bool:
        """Whether there is a validator."""
        return bool(self._spec)

    def ask(self, client: str, case: ValidationRequest) -> None:
        """Begin to ask about a client's lesson; the answer to an earlier one was taken."""
        answer: list[ValidatorVerdict] = []

        def work() -> None:
            with self._turns:
                if not self._stopped.is_set():
                    found = validator.ask_validator(
                        self._spec, case, self._timeout_s, self._stopped
                    )
                    answer.append(found)

        thread = threading.Thread(target=work, name=f"validator {client}", daemon=True)
        self._questions[client] = _Question(thread, answer)
        thread.start()

    def answered(self) -> list[str]:
        """Clients with an answer that is to be taken."""
        return [client for client, question in self._questions.items() if question.answer]

    def take(self, client: str) -> ValidatorVerdict | None:
        """The answer about a client's lesson; None while there is none."""
        question = self._questions[client]
        if not question.answer:
            return None
        del self._questions[client]
        return question.answer[0]

    def close(self) -> None:
        """Ask no more, and wait for no answer; commands that run are ended."""
        self._stopped.set()
        for question in self._questions.values():
            question.thread.join()
        self._questions.clear()
