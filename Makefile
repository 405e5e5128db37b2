# Five targets; each sets up what it needs, none relies on another having run.
# `make demo` installs the training extra, `make test` the development one on top of it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LISTS := pyproject.toml infra/constraints.txt layers/deps/requirements.txt layers/core/pilotlight/local/requirements.txt
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint infra/constraints.txt

.PHONY: demo serve test lint bench

demo: $(VENV)/with-train
	$(BIN)/pilotlight demo

serve: $(VENV)/with-train
	$(BIN)/pilotlight serve

test: $(VENV)/with-dev
	$(BIN)/python -m pytest

lint: $(VENV)/with-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint template.yaml

bench: $(VENV)/with-dev
	$(BIN)/python -m tests.benchmarks

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Pilotlight needs python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/with-train: $(VENV)/bin/python $(LISTS) functions/train/requirements.txt
	@echo "Installing what training and serving need into $(VENV) (once)."
	$(PIP) --editable '.[train]'
	@touch $@

$(VENV)/with-dev: $(VENV)/with-train tests/requirements.txt tests/requirements-runtime.txt
	@echo "Installing what tests and linters need into $(VENV) (once)."
	$(PIP) --editable '.[train,dev]'
	@touch $@
