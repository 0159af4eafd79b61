"""Exit codes of `fccl` that no error class carries.

0 success; 1 an unexpected error, a failed check of `fccl doctor`, or a server that does not run
(`fccl services status`); 2 to 9 the class of the error (`common.errors`), 2 also for wrong usage.
"""

DISAGREEMENT = 1
"""A site's log and the coordinator's journal do not agree (`fccl audit`), or a version is not what
its updates make it (`fccl verify`)."""
STOPPED = 10
"""Stopped before the plan was complete; `--resume` continues the run."""
FAILED = 11
"""The run failed."""
UNVERIFIED = 12
"""Nothing is wrong, but not every version could be recomputed (`fccl verify`)."""
OUTPUT_LOST = 13
"""Done, but standard output could not be written: its disk is full. A closed pipe is no error, but
it ends `fccl learn -` and `fccl try` in a pipe with this code: somebody waits for each line."""
INTERRUPTED = 130
"""Interrupted before there was a run to stop; or twice, and ended at once."""
