# Each target sets up what it needs; none relies on another having run.
# `demo` and `serve` install the training extra, `test`, `lint` and `bench` the development one on top of it.

PYTHON ?= python3
RUNTIME_PYTHON ?= python3.13  # Lambda's
ARCH ?= x86_64
UNASKED ?= fail  # or tell: what `audit` does where PyPI's advisories cannot be reached
VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check --constraint infra/constraints.txt
LISTS := pyproject.toml infra/constraints.txt layers/deps/requirements.txt layers/core/pilotlight/local/requirements.txt \
  functions/authorize/requirements.txt functions/batch/requirements.txt

.PHONY: demo serve test lint bench soak audit test-runtime package test-sam

# --- what people run -------------------------------------------------------------------------------------------------

demo: $(VENV)/with-train
	$(BIN)/pilotlight demo

serve: $(VENV)/with-train
	$(BIN)/pilotlight serve

test: $(VENV)/with-dev  # a process per CPU; the tests of a file share its fixtures
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/with-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint template.yaml infra/*.yaml

bench: $(VENV)/with-dev  # P1 to P6 and P10 of the goals, the loop of training, and throughput beside other servers
	@$(MAKE) .venv-runtime/ready || echo "Without $(RUNTIME_PYTHON), handlers are measured on this python." >&2
	@$(MAKE) .venv-rivals/ready || echo "Without LitServe and MLServer, throughput is measured alone." >&2
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/with-dev  # what takes an hour: 200,000 hostile bodies, then half an hour of requests with ten hot swaps
	$(BIN)/python -m tests.load fuzz
	$(BIN)/python -m tests.load mixed

audit: .venv-checkov/ready .venv-audit/ready  # what an auditor would ask; a suppression stands with its reason where it is
	.venv-checkov/bin/checkov --framework cloudformation --skip-download --quiet --compact $(addprefix -f ,template.yaml $(wildcard infra/*.yaml))
	.venv-audit/bin/python -m tests.audit --unasked $(UNASKED)

# --- what needs more than python: Lambda's python3.13, the SAM CLI, Docker -------------------------------------------

test-runtime: .venv-runtime/ready  # core and handlers on Lambda's python, without torch, onnx and scikit-learn
	.venv-runtime/bin/python -m pytest -n auto --dist loadfile tests/core \
	  tests/functions/authorize tests/functions/batch tests/functions/batches tests/functions/drift tests/functions/models \
	  tests/functions/predict \
	  tests/functions/promote tests/functions/start_training

package: .venv-sam/ready  # what `sam deploy` uploads, in .aws-sam/build; ARCH=arm64 builds for Graviton
	PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 PILOTLIGHT_ARCHITECTURE=$(ARCH) \
	  sam build --config-file infra/samconfig.toml --parameter-overrides Architecture=$(ARCH)
	# What was built for one architecture cannot be deployed to the other.
	sed -i '/^  Architecture:$$/,/^  [A-Z]/ { s/^    Default: .*/    Default: $(ARCH)/; /^    - [ax].*64$$/ { /- $(ARCH)$$/!d } }' \
	  .aws-sam/build/template.yaml .aws-sam/build/Events/template.yaml
	# Lambda mounts /opt and /var/task read-only: without bytecode, each cold start would compile all that it imports,
	# 350 ms of CPU. What no handler imports makes room for it (infra/decisions/0018).
	rm -rf $(addprefix .aws-sam/build/DepsLayer/python/onnxruntime/,transformers quantization tools datasets backend)
	find .aws-sam/build/DepsLayer/python/numpy -type d -name tests -prune -exec rm -r {} +
	$(RUNTIME_PYTHON) -m compileall -q --invalidation-mode unchecked-hash .aws-sam/build
	@du -s --apparent-size --block-size=1MB .aws-sam/build/DepsLayer .aws-sam/build/CoreLayer | \
	  awk '{ sum += $$1; print $$1 " MB  " $$2 } END { print sum " MB of the 250 that Lambda allows a function" }'
	PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 sam validate --lint

test-sam: $(VENV)/with-dev package  # the package under the SAM CLI; needs Docker and the runtime's image
	PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 $(BIN)/python -m pytest tests/e2e

# --- set-up ----------------------------------------------------------------------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Pilotlight needs python 3.11 or newer, and $(PYTHON) is older; try: make PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/with-train: $(VENV)/bin/python $(LISTS) functions/train/requirements.txt
	@echo "Installing what training and serving need into $(VENV), once."
	$(BIN)/python $(PIP) --editable '.[train]'
	@touch $@

$(VENV)/with-dev: $(VENV)/with-train tests/requirements.txt tests/requirements-runtime.txt
	@echo "Installing what tests and linters need into $(VENV), once."
	$(BIN)/python $(PIP) --editable '.[train,dev]'
	@touch $@

HANDLERS := layers/deps/requirements.txt functions/authorize/requirements.txt functions/batch/requirements.txt

.venv-runtime/ready: $(HANDLERS) tests/requirements-runtime.txt
	$(RUNTIME_PYTHON) -m venv --clear .venv-runtime
	.venv-runtime/bin/python $(PIP) --no-deps $(addprefix -r ,$(HANDLERS))  # as they are built
	.venv-runtime/bin/python $(PIP) -r tests/requirements-runtime.txt
	@touch $@

.venv-rivals/ready: tests/requirements-rivals.txt
	$(PYTHON) -m venv --clear .venv-rivals
	.venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements-rivals.txt
	@touch $@

.venv-sam/ready: infra/requirements-sam.txt
	$(PYTHON) -m venv --clear .venv-sam
	.venv-sam/bin/python -m pip install --quiet --disable-pip-version-check -r infra/requirements-sam.txt
	@touch $@

.venv-audit/ready: infra/requirements-audit.txt
	$(PYTHON) -m venv --clear .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check -r infra/requirements-audit.txt
	@touch $@

.venv-checkov/ready: infra/requirements-checkov.txt
	$(PYTHON) -m venv --clear .venv-checkov
	.venv-checkov/bin/python -m pip install --quiet --disable-pip-version-check -r infra/requirements-checkov.txt
	@touch $@
