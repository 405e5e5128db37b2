# Each target sets up what it needs; none relies on another having run.
# `demo` and `serve` install the training extra, `test`, `lint` and `bench` the development one on top of it.

PYTHON ?= python3
# Lambda's:
RUNTIME_PYTHON ?= python3.13
ARCH ?= x86_64
# Or tell: what `audit` does where PyPI's advisories cannot be reached.
UNASKED ?= fail
VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check --constraint infra/constraints.txt
LISTS := pyproject.toml infra/constraints.txt layers/deps/requirements.txt layers/core/pilotlight/local/requirements.txt \
  functions/authorize/requirements.txt functions/batch_worker/requirements.txt

# CloudFormation's templates; infra/api.yaml is what one of them includes.
TEMPLATES := template.yaml $(filter-out infra/api.yaml,$(wildcard infra/*.yaml))

.PHONY: demo serve test lint routes bench soak audit test-runtime package test-sam

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
	$(BIN)/cfn-lint $(TEMPLATES)

routes: $(VENV)/with-dev  # infra/api.yaml and openapi.json, from the table of routes in layers/core/pilotlight/api/routes.py
	$(BIN)/python -m pilotlight.openapi

bench: $(VENV)/with-dev  # P1 to P6 and P10 of the goals, the loop of training, and throughput beside other servers
	@$(MAKE) .venv-runtime/ready || echo "Without $(RUNTIME_PYTHON), handlers are measured on this python." >&2
	@$(MAKE) .venv-rivals/ready || echo "Without LitServe and MLServer, throughput is measured alone." >&2
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/with-dev  # what takes an hour: 200,000 hostile bodies, then half an hour of requests with ten hot swaps
	$(BIN)/python -m tests.load fuzz
	$(BIN)/python -m tests.load mixed

audit: .venv-checkov/ready .venv-audit/ready  # what an auditor would ask; .checkov.yaml has the reasons of what is passed over
	.venv-checkov/bin/checkov --config-file .checkov.yaml $(addprefix -f ,$(TEMPLATES))
	.venv-audit/bin/python -m tests.audit --unasked $(UNASKED)

# --- what needs more than python: Lambda's python3.13, the SAM CLI, Docker -------------------------------------------

test-runtime: .venv-runtime/ready  # core and handlers on Lambda's python, without torch, onnx and scikit-learn
	.venv-runtime/bin/python -m pytest -n auto --dist loadfile tests/core \
	  tests/functions/authorize tests/functions/batch_worker tests/functions/batch_api tests/functions/drift tests/functions/registry_api \
	  tests/functions/predict \
	  tests/functions/promote tests/functions/training_api

package: .venv-sam/ready  # what `sam deploy` uploads, in .aws-sam/build; ARCH=arm64 builds for Graviton
	PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 PILOTLIGHT_ARCHITECTURE=$(ARCH) \
	  sam build --parameter-overrides Architecture=$(ARCH)
	# What was built for one architecture cannot be deployed to the other.
	for template in .aws-sam/build/template.yaml .aws-sam/build/Events/template.yaml; do \
	  sed -e '/^  Architecture:$$/,/^  [A-Z]/{' -e 's/^    Default: .*/    Default: $(ARCH)/' \
	    -e '/^    - [ax].*64$$/{' -e '/- $(ARCH)$$/!d' -e '}' -e '}' $$template > $$template.new \
	  && mv $$template.new $$template || exit 1; done
	# Lambda mounts /var/task read-only: without bytecode, each cold start would compile what it imports. The layers'
	# own Makefiles have seen to theirs.
	$(RUNTIME_PYTHON) -m compileall -q --invalidation-mode unchecked-hash .aws-sam/build
	@for layer in DepsLayer CoreLayer; do \
	  echo $$layer $$(find .aws-sam/build/$$layer -type f -exec cat {} + | wc -c); done | \
	  awk '{ sum += $$2 / 1e6; printf "%.0f MB  %s\n", $$2 / 1e6, $$1 } END { printf "%.0f MB of the 250 that Lambda allows a function\n", sum }'
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

HANDLERS := layers/deps/requirements.txt functions/authorize/requirements.txt functions/batch_worker/requirements.txt

.venv-runtime/ready: $(HANDLERS) tests/requirements-runtime.txt
	$(RUNTIME_PYTHON) -m venv --clear .venv-runtime
	.venv-runtime/bin/python $(PIP) --no-deps $(addprefix -r ,$(HANDLERS))  # as they are built
	.venv-runtime/bin/python $(PIP) -r tests/requirements-runtime.txt
	@touch $@

.venv-rivals/ready: tests/requirements-rivals.txt
.venv-sam/ready .venv-audit/ready .venv-checkov/ready: .venv-%/ready: infra/requirements-%.txt
.venv-rivals/ready .venv-sam/ready .venv-audit/ready .venv-checkov/ready:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
