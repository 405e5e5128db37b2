# Each target sets up what it needs; none relies on another having run.
# `demo` and `serve` install the training extra, `test`, `lint` and `bench` the development one on top of it.

PYTHON ?= python3
# Lambda's:
RUNTIME_PYTHON ?= python3.13
ARCH ?= x86_64
# Whether the emulator of AWS judges calls by IAM's policies: `on` or `off`.
IAM ?= on
# What `audit` does if PyPI's advisories cannot be reached: `fail`, or `tell` (only report it).
UNASKED ?= fail
VENV := .venv
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check --constraint infra/constraints.txt
LISTS := pyproject.toml infra/constraints.txt layers/deps/requirements.txt layers/generation/requirements.txt layers/core/pilotlight/local/requirements.txt \
  functions/authorize/requirements.txt functions/batch_worker/requirements.txt

# CloudFormation's templates; infra/api.yaml is what one of them includes.
TEMPLATES := template.yaml $(filter-out infra/api.yaml,$(wildcard infra/*.yaml))

.DEFAULT_GOAL := help
.PHONY: help demo chat serve test test-slow test-heavy lint fmt routes bench soak audit docs clean test-runtime package test-sam test-deploy

# --- Everyday ---------------------------------------------------------------------------------------------------------

help:  ## print this list
	@awk -F ':.*## ' '/^# --- / { gsub(/^# -+ | -+$$/, ""); title = $$0 } \
	  /^[a-z-]+:.*## / { if (title) print "\n" title; title = ""; printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/with-train  ## train digits, publish, serve, and send every test digit through HTTP
	$(BIN)/pilotlight demo

chat: $(VENV)/with-convert  ## fetch a small language model, publish, serve, and chat with it here
	$(BIN)/pilotlight chat

serve: $(VENV)/with-train  ## serve template.yaml on this machine
	$(BIN)/pilotlight serve

# A process per CPU; the tests of a file share its fixtures.
test: $(VENV)/with-dev  ## run the tests that need only python
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(VENV)/with-dev  ## train every recipe of record, on several processes too, and serve ONNX's own suite
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

# What `make test` skips for want of a library.
test-heavy: .venv-heavy/ready  ## test with MLflow's and LangChain's own clients, and with CatBoost
	.venv-heavy/bin/python -m pytest tests/conformance/test_heavy_clients.py tests/functions/train/convert/test_boosters.py
	.venv-heavy/bin/python -m pytest tests/e2e/front_door/test_clients.py -k "served and mlflow"

lint: $(VENV)/with-dev  ## check style, types, imports between modules, and templates
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint $(TEMPLATES)

routes: $(VENV)/with-dev  ## write infra/api.yaml and openapi.json from the table of routes
	$(BIN)/python -m pilotlight.openapi

fmt: $(VENV)/with-dev  ## format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/with-dev  ## measure the goals, the training loop, and throughput beside other servers
	@$(MAKE) .venv-runtime/ready || echo "Without $(RUNTIME_PYTHON), handlers are measured on this python." >&2
	@$(MAKE) .venv-rivals/ready || echo "Without LitServe and MLServer, throughput is measured alone." >&2
	$(BIN)/python -m tests.benchmarks

soak: $(VENV)/with-dev  ## send 200,000 hostile bodies, then requests during ten hot swaps (an hour)
	$(BIN)/python -m tests.load fuzz
	$(BIN)/python -m tests.load mixed

# .checkov.yaml has the reasons of what is passed over.
audit: .venv-checkov/ready .venv-audit/ready  ## check the templates' security, and the dependencies for known holes
	.venv-checkov/bin/checkov --config-file .checkov.yaml $(addprefix -f ,$(TEMPLATES))
	.venv-audit/bin/python -m tests.audit --unasked $(UNASKED)

clean:  ## remove environments, builds and caches; .pilotlight, with the store in it, remains
	rm -rf $(VENV) .venv-* .aws-sam .bench build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf layers/core/*.egg-info benchmark.json benchmark.png
	find functions layers tests -name __pycache__ -prune -exec rm -rf {} +

docs: infra/docs/architecture.svg  ## draw the picture of the architecture from its text

infra/docs/architecture.svg: infra/docs/architecture.dot
	@if command -v dot >/dev/null; then dot -Tsvg $< -o $@; else echo "Without Graphviz, $@ stays as it is." >&2; fi

# --- With Lambda's python3.13, the SAM CLI or Docker ------------------------------------------------------------------

test-runtime: .venv-runtime/ready  ## test core and handlers on Lambda's python, without training libraries
	.venv-runtime/bin/python -m pytest -n auto --dist loadfile tests/core \
	  tests/functions/authorize tests/functions/batch_worker tests/functions/batch_api tests/functions/drift tests/functions/registry_api \
	  tests/functions/predict tests/functions/generate \
	  tests/functions/promote tests/functions/training_api

# `pilotlight deploy` builds by the same module, which needs nothing but python's standard library.
package: .venv-sam/ready  ## build what `sam deploy` uploads; ARCH=arm64 builds for Graviton
	PYTHONPATH=layers/core .venv-sam/bin/python -m pilotlight.deployment.package --architecture $(ARCH) --python $(RUNTIME_PYTHON)

test-sam: $(VENV)/with-dev package  ## test the package under the SAM CLI, in Docker
	PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 $(BIN)/python -m pytest tests/e2e --ignore tests/e2e/deploy

# IAM=off lets everything through, which tells a call that is broken from one that is denied.
test-deploy: $(VENV)/with-dev .venv-emulator/ready package  ## deploy the package to an emulator of AWS, and test it there
	PATH="$(CURDIR)/.venv-sam/bin:$$PATH" SAM_CLI_TELEMETRY=0 PILOTLIGHT_EMULATOR_IAM=$(IAM) \
	  $(BIN)/python -m pytest tests/e2e/deploy

# --- Set-up -----------------------------------------------------------------------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Pilotlight needs python 3.11 or newer, and $(PYTHON) is older; try: make PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/with-train: $(VENV)/bin/python $(LISTS) functions/train/requirements.txt
	@echo "Installing what training and serving need into $(VENV), once."
	$(BIN)/python $(PIP) --editable '.[train]'
	@touch $@

$(VENV)/with-convert: $(VENV)/with-train functions/train/convert/requirements.txt
	@echo "Installing what conversions need into $(VENV), once."
	$(BIN)/python $(PIP) --editable '.[train,convert]'
	@touch $@

# Of the evaluator of IAM one module is used, which needs nothing of what the rest of its package does.
$(VENV)/with-dev: $(VENV)/with-train functions/train/convert/requirements.txt tests/requirements.txt tests/requirements-runtime.txt tests/requirements-iam.txt
	@echo "Installing what tests and linters need into $(VENV), once."
	$(BIN)/python $(PIP) --editable '.[train,convert,dev]'
	$(BIN)/python $(PIP) --no-deps --requirement tests/requirements-iam.txt
	@touch $@

HANDLERS := layers/deps/requirements.txt layers/generation/requirements.txt functions/authorize/requirements.txt functions/batch_worker/requirements.txt

.venv-runtime/ready: $(HANDLERS) tests/requirements-runtime.txt
	$(RUNTIME_PYTHON) -m venv --clear .venv-runtime
	.venv-runtime/bin/python $(PIP) --no-deps $(addprefix -r ,$(HANDLERS))  # as they are built
	.venv-runtime/bin/python $(PIP) -r tests/requirements-runtime.txt
	@touch $@

# It sees what .venv has, and has beside it what would change that.
.venv-heavy/ready: $(VENV)/with-dev tests/requirements-heavy.txt functions/train/convert/requirements-catboost.txt
	$(PYTHON) -m venv --clear .venv-heavy
	seen=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  .venv-heavy/bin/python -c 'import sys, sysconfig, pathlib; pathlib.Path(sysconfig.get_path("purelib"), "main.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})\n")' "$$seen"
	.venv-heavy/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  -r tests/requirements-heavy.txt -r functions/train/convert/requirements-catboost.txt
	@touch $@

.venv-rivals/ready .venv-emulator/ready: .venv-%/ready: tests/requirements-%.txt
.venv-sam/ready .venv-audit/ready .venv-checkov/ready: .venv-%/ready: infra/requirements-%.txt
.venv-rivals/ready .venv-emulator/ready .venv-sam/ready .venv-audit/ready .venv-checkov/ready:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
