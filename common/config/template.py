"""The commented `federation.toml` that `fccl init` writes: every key, with its default.

A test holds it against `common.config.config`: it parses to the defaults, and no key is missing.
"""

TEMPLATE = """\
# A federation of fccl. Every key is here with its default; delete what you do not change.
# An environment variable overrides one key: FCCL_SCHEDULE__CONCURRENCY=8, FCCL_PHASE__0__LR=1e-3.

[run]
name = "federation"      # the run directory is <dir>/<name>
dir = "runs"
seed = 0                 # partition, adapter initialisation, task seeds
keep_versions = 10       # newest adapter versions kept; phase ends and the best are always kept

[broker]
url = "amqp://guest:guest@127.0.0.1:5672/"   # amqps:// for TLS
# ca = "certs/ca.pem"    # whom amqps:// trusts (`fccl certs`); default: the system's authorities
# management = "http://127.0.0.1:15672"   # where `fccl invite` makes users; default: port 15672
# public_url = "amqps://broker.example.org:5671/"   # as invited sites reach it (`fccl invite`)
site_mib = 1024          # updates that wait, of one site, in MiB: its quota; for all of a run
queue_type = "classic"   # "quorum": replicated queues, for a cluster of three nodes

[store]
url = "redis://127.0.0.1:6379/0"   # rediss:// for TLS
# ca = "certs/ca.pem"
# public_url = "rediss://broker.example.org:6380/0"

[operations]
log = "lines"            # "json": an object a line, for a log collector
metrics_port = 0         # /metrics (Prometheus), /livez, /readyz; 0: none
bind = "127.0.0.1"       # where they are served

[model]
name = "offline:gpt2-tiny"   # made here, without a download; or a hub id ("gpt2"), or a directory
# revision = "main"          # hub models: branch, tag or commit; tasks carry the resolved commit
max_length = 256             # tokens of prompt and response together; of a text to classify

[model.lora]                 # or lora=false in [model]: all parameters are trained and travel
r = 16
alpha = 32
dropout = 0.05
targets = "all-linear"       # or a list of module names, e.g. ["c_attn"]

[data]
# A source is "synthetic", a file (.json, .jsonl, .csv, .tsv, .parquet) or a hub data set id. Only
# those that a phase needs are read.
sft = "synthetic"        # instruction, input, output            (objective "sft")
va = "synthetic"         # prompt, chosen, rejected              (objective "dpo")
cls = "synthetic"        # text, label                           (objective "classification")
rows = 1500              # rows to make, when synthetic
labels = []              # classes; empty: those in the data
columns = {}             # where names differ: { text = "review_body", label = "stars" }
# dir = "data"           # use, or make, prepared data there (`fccl prepare`), not in the run
clients = 4
alpha = 0.5              # Dirichlet concentration: smaller is more skewed
partition = "topic"      # what is skewed: "topic" (classification: the class), "length", "label"
heldout = 0.1            # share of rows set aside, before the partition, to evaluate the result

[[phase]]                # phases run one after another
objective = "sft"        # or "dpo" (value alignment), or "classification" (of an encoder)
versions = 16            # commits of the coordinator in this phase
local_steps = 5          # optimizer steps of one task ...
local_epochs = 0         # ... or passes over the client's rows; exactly one of the two is above 0
lr = 6e-3                # for the offline model; gpt2 and larger want about 2e-4
lr_schedule = "cosine"   # over the phase's versions, down to a tenth; or "constant"
batch_size = 16
max_grad_norm = 1.0
prox_mu = 0.0            # FedProx
beta = 0.1               # dpo: how strongly the model is held to the version the phase began with
preference_loss = "sigmoid"   # dpo: or "ipo"
label_smoothing = 0.0    # dpo: assumed share of pairs that are the wrong way round
sft_weight = 0.0         # dpo: adds this times the loss of the chosen answers
logit_adjustment = 1.0   # classification: corrects for each client's own class frequencies; 0: off

[schedule]
concurrency = 4          # tasks in flight at most; async, no more than live workers
# buffer_size = 2        # K, updates per version; default concurrency // 2, or all of a sync round
reissue = "immediate"    # asynchronous; "commit" issues a round after each commit (FedAvg)
# quorum = 3             # sync: commit with this many once the round deadline has passed;
                         # without it a round waits for all, however long
round_deadline_s = 600.0
flush_s = 120.0          # async: commit a part-filled buffer after this long
lease_s = 60.0           # a task whose worker is silent for so long is issued again
task_deadline_s = 3600.0 # a task is issued again after this long, whatever the worker says
max_staleness = 20       # older updates are rejected

[aggregation]
contribution_mode = "combined"   # score: "loss" 1/l, "size" n, "combined" n/l
contribution_source = "train"    # l: mean training loss, or "holdout", the client's own holdout
score_scale = "log"              # softmax(log(s)/T), or "raw": softmax(s/T) to the letter
temperature = 1.0
floor = 0.1                      # w <- (1-floor) w + floor/K
cap = 3.0                        # no weight over cap/K
staleness_exponent = 0.5         # s(tau) = (1+tau)^-a
server_lr = 1.0
clip = 1.5                       # times the running median of the update norms
over_norm = "clip"               # or "reject"

[codec]
update = "int8"          # client to coordinator: fp32, bf16, int8, int4, topk
adapter = "fp32"         # coordinator to clients: fp32 or bf16

[incremental]            # learning from users between rounds: `fccl learn`, `fccl try`
enabled = true           # of a worker: whether it learns from its clients' inboxes
push = false             # what was learned waits for the client's next task; true asks for one
steps = 20               # optimizer steps for what came in, at most
# lr = 5e-4              # at first, then less; default with LoRA 3e-4 for classes, else 5e-4;
                         # 1e-5 for all parameters
batch_size = 8
replay = 0.5             # share of old rows in what is trained, against forgetting
reservoir = 500          # old rows to draw them from, each class of each task alike
gate = true              # false accepts whatever was learned: for experiments only
anchor_tolerance = 1.02  # the loss on the client's own holdout may rise to so many times
max_norm = 0.5           # of what was learned, as a part of the adapter's own norm
validator = ""           # may say no: a command, or an http(s) URL
validator_timeout_s = 10.0
items_per_minute = 600   # of one client; more has to wait
max_chars = 20000        # of one item
max_waiting = 10000      # items of one client

[samples]                # what the base and later versions answer, side by side: `fccl tui`
prompts = 3              # held-out rows to answer; 0: none, and no second model in memory
new_tokens = 40          # of an answer, at most
# every = 2              # versions from one to the next; default: an eighth of the plan
model_mb = 2000          # a base model whose files are larger is not loaded for it

[offline]                # what a new run has instead while the model hub is out of reach, e.g.
                         # "model.name"="offline:gpt2-tiny" and "phase.0.lr"=6e-3
"""
