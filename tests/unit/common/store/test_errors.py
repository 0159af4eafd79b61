"""Answers of a Redis in trouble are explained, each with a remedy."""

from __future__ import annotations

import pytest
import redis
from redis._parsers.base import BaseParser

from common.errors import StoreAccessError
from common.store.errors import explain_redis_error

ANSWERS = {
    "OOM command not allowed when used memory > 'maxmemory'.": ("memory limit", "maxmemory"),
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to"
    " disk. Commands that may modify the data set are disabled, because this instance is configured"
    " to report errors during writes": ("cannot save its data", "its log has the cause"),
    "READONLY You can't write against a read only replica.": ("read-only replica", "primary"),
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": (
        "lost its primary",
        "primary",
    ),
    "NOREPLICAS Not enough good replicas to write.": ("enough replicas", "min-replicas-to-write"),
    "MOVED 3999 127.0.0.1:6381": ("Redis Cluster", "cluster-enabled no"),
    "ASK 3999 127.0.0.1:6381": ("Redis Cluster", "cluster-enabled no"),
    "CLUSTERDOWN Hash slot not served": ("Redis Cluster", "cluster-enabled no"),
    "CROSSSLOT Keys in request don't hash to the same slot": ("Redis Cluster", "cluster-enabled"),
    "LOADING Redis is loading the dataset in memory": ("still loading", "wait"),
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": (
        "busy with a script",
        "SCRIPT KILL",
    ),
    "NOAUTH Authentication required.": ("refuses this user", "redis://user:password@"),
    "WRONGPASS invalid username-password pair or user is disabled.": (
        "refuses this user",
        "redis://user:password@",
    ),
    "DENIED Redis is running in protected mode because": ("protected mode", "password"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_of_a_server_in_trouble_has_a_cause_and_a_remedy(answer: str) -> None:
    cause, remedy = ANSWERS[answer]
    error = BaseParser.parse_error(answer)
    found = explain_redis_error(error, "host:6379")
    assert cause in found.what and remedy in found.remedy and "host:6379" in found.what
    assert isinstance(found, StoreAccessError) == isinstance(error, redis.AuthenticationError)


def test_a_cause_is_found_behind_the_command_of_a_pipeline() -> None:
    text = "Command # 2 (HSET BUSY x) of pipeline caused error: MISCONF Redis is configured, but"
    assert "cannot save" in explain_redis_error(redis.ResponseError(text), "h").what
