# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
STAGE ?=
EMAIL ?=
# What `make bench` is to do: names of parts, and options. All parts when empty.
PARTS ?=
# Processes that share the tests among them.
WORKERS ?= 2
RUN = PATH="$$($(PYTHON) scripts/setup.py --print-path):$$PATH" PYTHONPATH=layers/tidegate/python:.

.DEFAULT_GOAL := help
.PHONY: help setup up smoke down integration unit test test-full check bench synth deploy admin full-pass requirements

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup:  ## bring all tools into the checkout (every other target does this first)
	@$(PYTHON) scripts/setup.py

up: setup  ## start the whole stack on this machine
	@$(RUN) python -m fixtures.local_stack up

smoke: setup  ## drive the running stack through its edge
	@$(RUN) python -m fixtures.local_stack smoke

down: setup  ## stop exactly what `up` started
	@$(RUN) python -m fixtures.local_stack down

integration: setup  ## up, smoke, down
	@$(RUN) python -m fixtures.local_stack integration

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
	@$(RUN) python -m fixtures.deploy synth --stage "$(STAGE)"

deploy: setup  ## deploy to the account of the current credentials: make deploy STAGE=staging
	@$(RUN) python -m fixtures.deploy deploy --stage "$(STAGE)"

admin: setup  ## write the first admin: make admin STAGE=staging EMAIL=you@example.com
	@$(RUN) python -m fixtures.deploy admin --stage "$(STAGE)" --email "$(EMAIL)"

full-pass: setup  ## check every subscription again, now: make full-pass STAGE=staging
	@$(RUN) python -m fixtures.deploy full-pass --stage "$(STAGE)"

requirements: setup  ## compile the hashed requirements again
	@$(RUN) sh scripts/compile_requirements.sh
