# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
STAGE ?=
EMAIL ?=
# Of `make rotate-secret`: the secret, and options such as `--no-wait`, `--again`, `--json`.
NAME ?=
OPTIONS ?=
# What `make bench` is to do: names of parts, and options. All parts when empty.
PARTS ?=
# Processes that share the tests among them.
WORKERS ?= 2
# Recipes see it in their environment, so that a row's name needs no quoting.
export ROW ?=
RUN = PATH="$$($(PYTHON) scripts/setup.py --print-path):$$PATH" PYTHONPATH=layers/tidegate/python:.

.DEFAULT_GOAL := help
.PHONY: help setup up smoke down integration unit test test-full check bench synth deploy admin full-revalidation full-pass secrets rotate-secret requirements

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' Makefile

setup:  ## bring all tools into the checkout (every other target does this first)
	@$(PYTHON) scripts/setup.py

up: setup  ## start the whole stack on this machine
	@$(RUN) python -m local_stack up

smoke: setup  ## drive the running stack through its edge: make smoke, make smoke ROW="wildcard topic"
	@$(RUN) python -m local_stack smoke --row "$$ROW"

down: setup  ## stop what `up` started, and remove what it wrote
	@$(RUN) python -m local_stack down

integration: setup  ## up, smoke, down
	@$(RUN) python -m local_stack integration

unit: setup  ## the fast tests: no process, no socket, under a minute
	@$(RUN) python -m pytest tests/unit tests/docs

test: setup  ## every test, the emulator included; the model in its small bound
	@$(RUN) python -m pytest -n $(WORKERS)

test-full: setup  ## as test, the model in its full bound, and the tests marked `full`
	@$(RUN) python -m pytest -n $(WORKERS) --full

check: setup  ## formatting, lint, types, layering
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports --no-logo

bench: setup  ## measure what the product promises; results under benchmarks/results
	@$(RUN) python -m benchmarks $(PARTS)

synth: setup  ## synthesise a stage: make synth STAGE=staging
	@$(RUN) python -m ops.deploy synth --stage "$(STAGE)"

deploy: setup  ## deploy to the account of the current credentials: make deploy STAGE=staging
	@$(RUN) python -m ops.deploy deploy --stage "$(STAGE)"

admin: setup  ## write the first admin: make admin STAGE=staging EMAIL=you@example.com
	@$(RUN) python -m ops.deploy admin --stage "$(STAGE)" --email "$(EMAIL)"

full-revalidation: setup  ## check every subscription again, now: make full-revalidation STAGE=staging
	@$(RUN) python -m ops.deploy full-revalidation --stage "$(STAGE)"

secrets: setup  ## show the values of each secret, their age and what is due: make secrets STAGE=staging
	@$(RUN) python -m ops.rotate_secret --stage "$(STAGE)" $(OPTIONS)

rotate-secret: setup  ## give a secret a new value, or go on with it: make rotate-secret STAGE=staging NAME=jwt-gateway
	@test -n "$(NAME)" || { echo "error: NAME is missing; make secrets STAGE=... lists the names" >&2; exit 1; }
	@$(RUN) python -m ops.rotate_secret --stage "$(STAGE)" --name "$(NAME)" $(OPTIONS)

full-pass: full-revalidation  ## the former name of full-revalidation

requirements: setup  ## compile the hashed requirements again
	@$(RUN) sh scripts/compile_requirements.sh
