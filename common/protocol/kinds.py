"""Vocabularies of the coordinator: kinds of feed entries, and kinds of rejections.

Journals store these values, and metrics carry them as labels: add values, but change none. Readers
branch on a kind and never on the text beside it, which is for people.
"""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    """Kind of an entry in the coordinator's event feed (`Event.kind`)."""

    ISSUED = "issued"
    ACCEPTED = "accepted"
    CLOSED = "closed"  # a task was closed without an update
    REJECTED = "rejected"  # an update was not accepted; `refs` has `rejection` and `reason`
    REFUSED = "refused"  # a worker cannot train a task
    QUARANTINED = "quarantined"
    LEASE = "lease"  # a task was issued again, or waits for its site
    VERSION = "version"
    FINISHED = "finished"
    STOPPED = "stopped"
    JOIN = "join"
    REVOKED = "revoked"
    SITES = "sites"  # invitations, and the accounts of invited sites
    COMMAND = "command"
    EVALUATION = "evaluation"  # of a version at the sites: due, or ended
    EVALUATOR = "evaluator"  # figures of a version by a plug-in, or its failure
    TRACKER = "tracker"  # a plug-in that follows the run has failed
    SCORES = "scores"  # of updates cannot be computed
    DEAD_LETTER = "dead-letter"
    FLOOD = "flood"
    BROKER = "broker"
    TAKEOVER = "takeover"  # waits for the process that holds the journal
    REPAIRED = "repaired"  # queues of the broker were missing, and were declared again
    WORKERS = "workers"
    STALLED = "stalled"  # nobody makes progress, for the reason in the text
    BASE_MODEL = "base-model"  # workers that lack it cannot get it from the coordinator
    SAMPLES = "samples"
    DELIVERY = "delivery"  # of the result to the sites
    DEGRADED = "degraded"  # the store is out of reach
    RESTORED = "restored"  # the store answers again
    UNPUBLISHED = "untold"  # the run ended while the store was out of reach


class RejectionKind(StrEnum):
    """Reason for which an update, a refusal or an open task came to nothing."""

    IDENTITY = "identity"  # sent by somebody who may not answer this task
    ATTEMPT = "attempt"  # the phase, attempt or base version is not what was issued
    STATISTICS = "statistics"
    TENSORS = "tensors"  # tensors cannot be decoded, or are not those of the adapter
    NOT_FINITE = "not finite"
    NORM = "norm"
    STALE = "stale"
    REFUSED = "refused"  # no worker could train the task
    PHASE_OVER = "phase over"
    ROUND_OVER = "round over"
    KICKED = "kicked"
    DECLINED = "declined"  # the client evaluates nothing, by its site's settings
    EXPIRED = "expired"  # an evaluation was not answered in time
    VERSION = "version"  # an evaluation of a version that is gone, or was not asked for
    REVOKED = "revoked"
