"""The short plan that `fccl init --sites-only` writes: all rows stay at the sites.

A test starts a run from it as it is. `common.config.template` has every key.
"""

SITES_ONLY_TEMPLATE = """\
# Plan of a federation whose rows all stay at its sites. The coordinator needs none: `fccl invite`
# lets sites join, `fccl coordinator` begins. `fccl init` writes a file with every key.

[run]
name = "federation"      # sites are invited to this name; the run directory is runs/federation
contact = ""             # who coordinates: a name and an address, shown to the people at the sites

[broker]
url = "amqp://guest:guest@127.0.0.1:5672/"
# public_url = "amqps://broker.example.org:5671/"    # the address for the sites
# ca = "certs/ca.pem"    # authority of `fccl certs`, for amqps:// and rediss://

[store]
url = "redis://127.0.0.1:6379/0"
# public_url = "rediss://broker.example.org:6380/0"
# ca = "certs/ca.pem"

[model]
name = "offline:gpt2-tiny"    # or "offline:smollm2-135m" (a chat model), a hub id, a directory

[data]
clients = 0              # no rows are dealt here
# labels = ["negative", "positive"]   # objective "classification": all classes

[[phase]]
objective = "sft"        # or "dpo", "kto", "classification"
versions = 16            # commits of the coordinator
lr = 6e-3                # for the offline model; gpt2, smollm2 and larger models need about 2e-4

[schedule]
min_clients = 2          # with fewer live clients nothing is issued or committed

[evaluation]             # the sites evaluate version 0, phase ends and the last version
every = 4                # ... and every so many versions
# rows = "heldout.jsonl" # rows of your own that no site trains on, for the report

# [samples]
# prompts_file = "prompts.jsonl"   # {"prompt": "..."} per line, answered by versions
"""
