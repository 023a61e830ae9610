# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BENCH_PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DEMO_INSTALLED := $(VENV)/demo-installed
BENCH_VENV := .venv-bench
BENCH_INSTALLED := $(BENCH_VENV)/installed

# One torch thread a process: two busy processes with two threads each run three times slower than with one.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.PHONY: demo test test-slow bench bench-prepare bench-small-files bench-train bench-gpu stacks build docs model-types lint format clean help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# The demo installs what it needs and no more; the tools of development go into the same environment when they are asked
# for. An installation that was broken off leaves no marker: it is done again.
$(DEMO_INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(INSTALLED): $(DEMO_INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
	touch $@

demo: $(DEMO_INSTALLED)  ## the whole method on text found in the installation, into runs/demo
	$(BIN)/doremi demo --out runs/demo

test: $(INSTALLED)  ## all tests but the soak tests
	$(TEST_ENVIRONMENT) $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(INSTALLED)  ## the soak tests
	$(TEST_ENVIRONMENT) $(BIN)/pytest -m slow

# Peers of the benchmarks, and stacks that exports are loaded with, live in an environment of their own: they must never
# change what is installed for the tests. What was half made is made anew.
$(BENCH_INSTALLED): benchmarks/peers-loader.txt benchmarks/peers-prepare.txt tests/exporters/stacks.txt constraints.txt
	$(PYTHON) -m venv --clear $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --constraint constraints.txt torch
	$(BENCH_VENV)/bin/pip install --quiet --constraint constraints.txt --no-deps --requirement benchmarks/peers-loader.txt \
		--requirement benchmarks/peers-prepare.txt --requirement tests/exporters/stacks.txt
	touch $@

bench: $(INSTALLED) $(BENCH_INSTALLED)  ## the loader against its peers, about 6 minutes
	$(BIN)/python -m benchmarks.loader $(if $(JSON),--json $(JSON))

bench-prepare: $(INSTALLED) $(BENCH_INSTALLED)  ## preparing a corpus against other ways to do it, about 15 minutes
	$(BIN)/python -m benchmarks.prepare $(if $(CORPUS),--corpus $(CORPUS)) $(if $(JSON),--json $(JSON))

bench-small-files: $(INSTALLED) $(BENCH_INSTALLED)  ## preparing 20,000 small files against other ways to do it, about 2 minutes
	$(BIN)/python -m benchmarks.small_files $(if $(JSON),--json $(JSON))

bench-train: $(INSTALLED)  ## proxy, plain and bare training steps on the CPU, about 6 minutes
	$(BIN)/python -m benchmarks.train $(if $(JSON),--json $(JSON))

# Installs nothing: the machine's own Python has to have torch, transformers, accelerate and xxhash.
bench-gpu:  ## the same on one GPU, under 8 minutes
	PYTHONPATH=src $(BENCH_PYTHON) -m benchmarks.train --device cuda --json $(or $(JSON),benchmarks/results/train-gpu.json)

stacks: $(BENCH_INSTALLED)  ## other training stacks, for the tests that load exports with them

build: $(INSTALLED)  ## wheel and source distribution, into dist
	$(BIN)/python -m build

# The page of recipe keys includes what the command prints. Links that lead nowhere are errors.
docs: $(INSTALLED)  ## the site, into build/site
	mkdir -p build
	$(BIN)/doremi run --help-recipe > build/recipe.txt
	$(BIN)/zensical build --strict --clean

model-types: $(INSTALLED)  ## docs/model-types.md: what every causal model type of transformers does, about 8 minutes
	$(TEST_ENVIRONMENT) $(BIN)/python -m tests.conformance.table

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environments and caches, not the runs
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .cache build dist
