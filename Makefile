# Everything runs in .venv, which the first command makes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Compiling every module anew takes longer than most commands do.
unexport PYTHONDONTWRITEBYTECODE
PAGES := $(wildcard ../shared/data/tldr/pages.jsonl.gz)

.DEFAULT_GOAL := help
.PHONY: help demo serve test check fix bench gpu firsttoken chaos defences mutate docs schemas constraints clean

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade 'pip>=25.1'
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[registry,s3,hub,torch,plaintext,mcp,proxy,langchain,langgraph]' --group dev
	@touch $(READY)

demo: $(READY) ## publish, sign, pull, verify and mount a cube, all on this machine
	$(BIN)/memcube demo $(addprefix --pages ,$(PAGES))

serve: $(READY) ## run a registry with SQLite and local files
	$(BIN)/memcube serve

# Many tests wait for processes that they start: more of them than most machines have cores.
test: $(READY) ## run the tests
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(READY) ## format, lint, types, layers, sizes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/house

fix: $(READY) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure against peers; writes docs/benchmarks.md's figures
	$(BIN)/python -m pytest -s tests/bench -o norecursedirs='.*' -o python_files='bench_*.py' -o timeout=0

chaos: $(READY) ## kill a registry under load and check what it acknowledged; CHAOS='--kills 500 --seed 1'
	PYTHONPATH=tests $(BIN)/python -m chaos $(CHAOS)

# On a machine with CUDA, with the torch (2.11 or later) and transformers (5.17 or later) that it has.
GPU_PYTHON ?= python3
GPU_OUT ?= tests/bench/results/gpu.json

gpu: ## measure KV memories on a CUDA device; needs blake3 and rfc8785 beside torch and transformers
	$(GPU_PYTHON) tests/bench/time_to_first_token.py --device cuda --shape 8B --shape 32B --out $(GPU_OUT)

firsttoken: $(READY) ## measure KV memories on this machine's CPU: a quarter of an hour
	$(BIN)/python tests/bench/time_to_first_token.py --device cpu --shape 0.6B

defences: $(READY) ## take each defence of the threat model away, and see its tests fail
	nice -n 19 $(BIN)/python -m tests.defences

mutate: $(READY) .venv/mutation ## break the verifier in every small way, and see a test fail for each
	nice -n 19 $(BIN)/python -m tests.mutation

# Beside what the tests import, so that they run as they do without it.
.venv/mutation: pyproject.toml constraints.txt | $(READY)
	$(BIN)/pip install -q --upgrade --target $@ -c constraints.txt --group mutation
	@touch $@

docs: $(READY) ## write the generated parts of docs/ anew
	$(BIN)/python -m tests.house.generate

clean: ## remove what the commands made
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache
