"""The commented `worker.toml` that a worker writes at its first start: every key, by default.

A test compares it with `worker.settings.settings`: it parses to the defaults, and no key is
missing.
"""

TEMPLATE = """\
# Settings of this site. Every key has its default here. A worker reads the file when it starts; it
# wrote it once, and never changes it. An environment variable overrides one key, for example
# FCCL_WORKER__MICRO_BATCH=2, and an option of `fccl worker` (--device, --compile) overrides both.

micro_batch = "auto"     # examples that go through the model at once, or a number; gradients are
                         # accumulated, so the result is the same; "auto" halves it when memory
                         # runs out
checkpointing = "auto"   # true: compute activations twice instead of keeping them, which takes less
                         # memory and more time; false: never; "auto": where memory demands it
device = "auto"          # "cpu", "cuda", "cuda:1"; "auto": a GPU if there is one
compile = false          # true: use torch.compile; slow start, fast steps

evaluation = true        # false: measure no loss on this site's holdout, and evaluate no version
                         # on its validation rows
share_updates = false    # true: other sites may evaluate this site's updates, and this site theirs
                         # (aggregation.contribution_source = "federated")
accept = []              # base models to train, e.g. ["Qwen/*", "offline:*", "sha256:1a2b3c4d"];
                         # empty: any; only a digest names the bytes, a name is a claim
review = false           # true: take tasks only under a plan that somebody has approved here with
                         # `fccl worker --review`; another plan asks again
hours = "always"         # when to work, in local time: "22:00-06:00", or a list such as
                         # ["mon-fri 20:00-07:00", "sat,sun"]; a task in training is finished

upload = "unlimited"     # limit for updates, e.g. "10 Mbit/s" or "500 kB/s", shared by the workers
                         # of this machine
download = "unlimited"   # likewise for adapters, and for a base model from the coordinator
"""
